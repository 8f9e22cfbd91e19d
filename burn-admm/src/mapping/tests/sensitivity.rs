use burn::tensor::{Distribution, Tensor};
use burn_sparse::nn::{Conv2d, Conv2dConfig, Trace};

use super::*;

type Model = [Conv2d; 3];

fn model(device: &Device) -> (Model, Tensor<4>) {
    let model = [3, 3, 1].map(|kernel| Conv2dConfig::new([6, 6], [kernel, kernel]).init(device));
    let x = Tensor::random([2, 6, 8, 8], Distribution::Default, device);
    (model, x)
}

fn forward(model: &Model, x: &Tensor<4>) -> Tensor<4> {
    model.iter().fold(x.clone(), |x, conv| conv.forward(x))
}

fn options(model: &Model, x: &Tensor<4>) -> Vec<LayerOptions> {
    let trace = Trace::of(|| drop(forward(model, x)));
    layer_options(model, &trace, &OptionConfig::default()).unwrap()
}

#[test]
fn each_scheme_of_each_layer_is_evaluated_once_and_alone() {
    let device = Device::flex();
    let (model, x) = model(&device);
    let layers = options(&model, &x);
    let count: usize = layers.iter().map(|layer| layer.schemes.len()).sum();
    let mut seen = 0;
    let mut loss = |pruned: &Model| {
        seen += 1;
        let zeros = pruned.iter().map(|conv| {
            let weights: Vec<f32> = conv.weight.val().into_data().try_to_vec().unwrap();
            weights.iter().filter(|&&w| w == 0.0).count()
        });
        let touched = zeros.clone().filter(|&zeros| zeros > 0).count();
        assert!(touched <= 1, "one layer at a time");
        Ok(zeros.sum::<usize>() as f64)
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("losses.json");
    let mut known = Sensitivity::new("a");
    // Interrupted, kept, and gone on with.
    let stopped = known.measure(&model, &layers, &mut loss, |known, done, all| {
        assert_eq!(all, count);
        known.save(&path)?;
        match done {
            4 => Err(MappingError::Stopped("enough".into())),
            _ => Ok(()),
        }
    });
    assert!(matches!(stopped, Err(MappingError::Stopped(_))));
    let opened = Sensitivity::open(&path, "a").unwrap();
    assert!(opened.dropped.is_none());
    let mut known = opened.table;
    let wanted = |_: &Sensitivity, _, all| {
        assert_eq!(all, count - 4);
        Ok(())
    };
    known.measure(&model, &layers, &mut loss, wanted).unwrap();
    // The dense network once, and no scheme twice.
    assert_eq!(seen, count + 1);
    let half = Sparsity::row_balanced(0.5).unwrap();
    assert_eq!(known.harm("1.weight", half), Some(6.0 * 27.0));
    assert_eq!(
        known.harm("0.weight", half),
        None,
        "the first convolution stays"
    );
    assert!(matches!(
        known.measure(
            &model,
            &layers,
            |_| Ok(0.0),
            |_, _, all| {
                assert_eq!(all, 0);
                Ok(())
            }
        ),
        Ok(())
    ));
    let other = Sensitivity::open(&path, "b").unwrap();
    assert!(other.table.entries().is_empty());
    assert!(other.dropped.unwrap().contains("losses of `a`"));
}

#[test]
fn losses_that_are_none_are_kept_as_the_worst() {
    let device = Device::flex();
    let (model, x) = model(&device);
    let layers = options(&model, &x);
    let mut known = Sensitivity::new("a");
    let mut first = true;
    let loss = |_: &Model| {
        Ok(if core::mem::take(&mut first) {
            1.0
        } else {
            f64::NAN
        })
    };
    known
        .measure(&model, &layers, loss, |_, _, _| Ok(()))
        .unwrap();
    let harm = known.harm("2.weight", layers[1].schemes[0]).unwrap();
    assert!(harm > 1e300 && harm.is_finite());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("losses.json");
    known.save(&path).unwrap();
    assert!(Sensitivity::open(&path, "a").unwrap().dropped.is_none());
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"dense\":1.0", "\"dense\":1e999")).unwrap();
    assert!(Sensitivity::open(&path, "a").unwrap().dropped.is_some());
}
