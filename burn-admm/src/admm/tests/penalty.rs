use super::*;

#[test]
fn the_penalty_and_its_gradient_agree_with_finite_differences() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let rho = 0.37;
    let start = model(4);
    let mut admm = Admm::new(&start, &plan(), constant(rho)).unwrap();
    let model = walk(start, &mut rng);
    admm.update(&model).unwrap();
    let model = walk(model, &mut rng);

    let penalty = |model: &Two| -> f64 {
        ["a.weight", "b"]
            .into_iter()
            .flat_map(|path| {
                let (w, z, u) = (
                    get(model, path),
                    admm.z(path).unwrap(),
                    admm.u(path).unwrap(),
                );
                (0..w.len()).map(move |i| f64::from(w[i]) - f64::from(z[i]) + f64::from(u[i]))
            })
            .map(|d| 0.5 * rho * d * d)
            .sum()
    };
    let value = admm.penalty(&model);
    assert!(value.is_autodiff());
    let by_hand = penalty(&model);
    let computed: f32 = value.clone().into_scalar();
    // 54 squares summed in f32.
    assert!((f64::from(computed) - by_hand).abs() <= 54.0 * f64::from(f32::EPSILON) * by_hand);

    let grads = value.backward();
    let analytic = [
        model
            .a
            .weight
            .grad(&grads)
            .unwrap()
            .into_data()
            .try_to_vec::<f32>()
            .unwrap(),
        model
            .b
            .grad(&grads)
            .unwrap()
            .into_data()
            .try_to_vec::<f32>()
            .unwrap(),
    ];
    assert!(model.a.bias.as_ref().unwrap().grad(&grads).is_none());
    for (grad, path) in analytic.iter().zip(["a.weight", "b"]) {
        let w = get(&model, path);
        for i in 0..w.len() {
            // The penalty is quadratic: central differences are exact up to rounding of w ± h.
            let (mut up, mut down) = (w.clone(), w.clone());
            up[i] += 1e-2;
            down[i] -= 1e-2;
            let h = f64::from(up[i]) - f64::from(down[i]);
            let slope = (penalty(&set(model.clone(), path, up))
                - penalty(&set(model.clone(), path, down)))
                / h;
            assert!(
                (slope - f64::from(grad[i])).abs() < 1e-5,
                "{path} {i}: {slope} {}",
                grad[i]
            );
        }
    }

    // The direct form adds the same gradient.
    let ones = |model: &Two| {
        let loss = model.a.weight.val().sum() + model.b.val().sum();
        GradientsParams::from_grads(loss.backward(), model)
    };
    let added = admm.add_gradient(&model, ones(&model));
    let direct = [
        added
            .get::<2>(model.a.weight.id)
            .unwrap()
            .into_data()
            .try_to_vec::<f32>()
            .unwrap(),
        added
            .get::<3>(model.b.id)
            .unwrap()
            .into_data()
            .try_to_vec::<f32>()
            .unwrap(),
    ];
    for (direct, grad) in direct.iter().zip(&analytic) {
        for (d, g) in direct.iter().zip(grad) {
            assert!((d - 1.0 - g).abs() <= 4.0 * f32::EPSILON, "{d} {g}");
        }
    }
    // Without autodiff the penalty is just a number.
    let plain: f32 = admm.penalty(&model.valid()).into_scalar();
    assert_eq!(plain, computed);
}

#[test]
#[should_panic(expected = "the model has 0 of the 2 constrained parameters")]
fn the_penalty_of_a_foreign_model_panics() {
    let start = model(9);
    let admm = Admm::new(&start, &plan(), constant(1e-2)).unwrap();
    let _ = admm.penalty(&start.a);
}

#[test]
fn other_dtypes_are_pruned_in_their_own() {
    #[derive(Module, Debug)]
    struct Lone {
        w: Param<Tensor<2>>,
    }
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        let values = TensorData::new(vec![0.5f32, -2.0, 1.0, 0.25], [2, 2]);
        let w = Tensor::<2>::from_data(values, (&device(), dtype));
        let model = Lone {
            w: Param::from_tensor(w),
        };
        let plan = Plan::new(Sparsity::row_balanced(0.5).unwrap());
        let mut admm = Admm::new(&model, &plan, constant(1.0)).unwrap();
        // W − Z is (0.5, 0, 0, 0.25).
        let penalty = admm.penalty(&model);
        assert_eq!(penalty.dtype(), dtype);
        let grads = penalty.clone().backward();
        assert_eq!(
            penalty.into_data().iter::<f32>().collect::<Vec<_>>(),
            [0.15625]
        );
        let gradient = model.w.grad(&grads).unwrap();
        assert_eq!(gradient.dtype(), dtype);
        assert_eq!(
            gradient.into_data().iter::<f32>().collect::<Vec<_>>(),
            [0.5, 0.0, 0.0, 0.25]
        );
        admm.update(&model).unwrap();
        assert_eq!(admm.u("w").unwrap(), [0.5, 0.0, 0.0, 0.25]);
        let masked = crate::Masks::project(&model, admm.plan())
            .unwrap()
            .attach(model)
            .unwrap();
        assert_eq!(get(&masked, "w"), [0.0, -2.0, 1.0, 0.0]);
        assert_eq!(masked.w.val().dtype(), dtype);
    }
}
