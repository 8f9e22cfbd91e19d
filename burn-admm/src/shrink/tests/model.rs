//! What surrounds the analysis: graphs that do not fit, files, masks, training.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use burn_sparse::Sparsity;

use crate::shrink::*;
use crate::{Masks, Plan};

#[derive(Module, Debug)]
struct Mlp {
    a: Linear,
    b: burn_sparse::nn::Linear,
}

impl Mlp {
    fn new(device: &Device) -> Self {
        Self::with_layout(LinearLayout::Col, device)
    }

    fn with_layout(layout: LinearLayout, device: &Device) -> Self {
        let mut a = LinearConfig::new(4, 6).with_layout(layout).init(device);
        let keep = Tensor::<1>::from_floats([1.0, 0.0, 1.0, 0.0, 0.0, 1.0], device);
        a.weight = a.weight.map(|weight| weight * keep.reshape([1, 6]));
        // What the emptied units emit is not zero.
        a.bias = a.bias.map(|bias| bias.map(|bias| bias.abs() + 0.5));
        Self {
            a,
            b: burn_sparse::nn::LinearConfig::new(6, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.b.forward(relu(self.a.forward(x)))
    }
}

impl ChannelModel for Mlp {
    fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
        ChannelGraph::of(input, |x| {
            x.linear("a", &self.a).relu().linear("b", &self.b)
        })
    }
}

fn plan(model: &Mlp) -> ShrinkPlan {
    let graph = model.channel_graph(&[4]).unwrap();
    ShrinkPlan::new(model, &graph, &ShrinkOptions::new()).unwrap()
}

#[test]
fn a_record_loads_into_a_model_shrunk_the_same_way() {
    let device = Device::flex();
    let model = Mlp::with_layout(LinearLayout::Row, &device);
    let small = shrink(model, &[4], &ShrinkOptions::new(), Mlp::forward).unwrap();
    assert_eq!(small.model.a.weight.dims(), [4, 3]);
    let x = Tensor::random([5, 4], Distribution::Default, &device);
    let expected = small.model.forward(x.clone());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.bpk");
    small.model.save_file(&path).unwrap();
    let json = small.plan.to_json();

    let plan = ShrinkPlan::from_json(&json).unwrap();
    let fresh = Mlp::with_layout(LinearLayout::Row, &device);
    assert!(fresh.clone().try_load_file(&path).is_err());
    let loaded = plan.apply(fresh).unwrap().try_load_file(&path).unwrap();
    assert_eq!(compare(expected, loaded.forward(x)).max_abs_diff, 0.0);
}

#[test]
fn a_shrunk_model_trains_on() {
    let device = Device::flex().autodiff();
    let small = shrink(Mlp::new(&device), &[4], &ShrinkOptions::new(), Mlp::forward).unwrap();
    let model = small.model;
    assert!(model.a.weight.is_require_grad());
    let id = model.a.weight.id;
    let before = model.a.weight.val().inner();
    let x = Tensor::random([5, 4], Distribution::Default, &device);
    let loss = model.forward(x).powi_scalar(2).mean();
    let gradients = GradientsParams::from_grads(loss.backward(), &model);
    let model = SgdConfig::new().init().step(0.1, model, gradients);
    assert_eq!(model.a.weight.id, id);
    assert!(compare(before, model.a.weight.val().inner()).max_abs_diff > 0.0);
}

#[test]
fn masks_are_applied_and_folded() {
    /// What an optimiser may do to the stored base of a masked weight.
    struct Drift;
    impl ModuleMapper for Drift {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor + 1.0)
        }
    }
    let model = Mlp::new(&Device::flex());
    let sparsity = Plan::new(Sparsity::unstructured(0.5).unwrap());
    // The smallest half are the weights of the three units that have none.
    let masks = Masks::project(&model, &sparsity.resolve(&model).unwrap()).unwrap();
    let masked = masks.attach(model).unwrap().map(&mut Drift);
    let small = shrink(masked, &[4], &ShrinkOptions::new(), Mlp::forward).unwrap();
    assert_eq!(small.model.a.weight.dims(), [4, 3]);
    assert!(Masks::attached(&small.model).layers().is_empty());
}

#[test]
fn a_plan_fits_only_its_model_and_only_once() {
    let device = Device::flex();
    let model = Mlp::new(&device);
    let plan = plan(&model);
    let small = plan.apply(model).unwrap();
    let error = plan.apply(small).unwrap_err();
    assert!(matches!(error, ShrinkError::Shape { parameter, .. } if parameter == "a.weight"));
    let other = LinearConfig::new(4, 6).init(&device);
    let error = plan.apply(other).unwrap_err();
    assert!(matches!(error, ShrinkError::Missing { parameter, .. } if parameter == "a.weight"));
}

#[test]
fn graphs_that_do_not_describe_the_model_are_refused() {
    let device = Device::flex();
    let model = Mlp::new(&device);
    let options = ShrinkOptions::new();
    let new = |graph: ChannelGraph| ShrinkPlan::new(&model, &graph, &options).unwrap_err();

    let typo = ChannelGraph::of([4], |x| x.linear("aa", &model.a).linear("b", &model.b));
    let error = new(typo.unwrap());
    assert!(
        matches!(&error, ShrinkError::Missing { near: Some(near), .. } if near == "a.weight"),
        "{error}"
    );
    let part = ChannelGraph::of([4], |x| x.linear("a", &model.a));
    let error = new(part.unwrap());
    assert!(matches!(error, ShrinkError::Undeclared { parameter } if parameter == "b.weight"));
    let wrong = ChannelGraph::of([4], |x| {
        x.linear("a", LinearSpec([4, 5]))
            .linear("b", LinearSpec([5, 3]))
    });
    assert!(matches!(new(wrong.unwrap()), ShrinkError::Shape { .. }));
    // A packed layer has no weight to cut.
    let mut packed = model.clone();
    packed.b = packed.b.pack().unwrap();
    let graph = packed.channel_graph(&[4]).unwrap();
    let error = ShrinkPlan::new(&packed, &graph, &options).unwrap_err();
    assert!(
        matches!(&error, ShrinkError::Missing { parameter, .. } if parameter == "b.weight"),
        "{error}"
    );
    // What is opaque needs no description.
    let opaque = ChannelGraph::of([4], |x| x.linear("a", &model.a).opaque("b", [3]));
    let plan = ShrinkPlan::new(&model, &opaque.unwrap(), &options).unwrap();
    assert!(plan.cuts().is_empty());
}

/// Says that nothing happens between the layers, although a ReLU does.
#[derive(Module, Debug)]
struct Liar {
    inner: Mlp,
}

impl ChannelModel for Liar {
    fn channel_graph(&self, input: &[usize]) -> Result<ChannelGraph, GraphError> {
        ChannelGraph::of(input, |x| {
            let x = x.linear("inner.a", &self.inner.a);
            x.linear("inner.b", &self.inner.b)
        })
    }
}

#[test]
fn a_graph_that_lies_is_found_out() {
    let device = Device::flex();
    let mut inner = Mlp::new(&device);
    let bias = inner.a.bias.take().unwrap();
    inner.a.bias = Some(bias.map(|bias| bias.abs() * -1.0 - 1.0));
    let liar = Liar { inner };
    let forward = |liar: &Liar, x| liar.inner.forward(x);
    let error = shrink(liar, &[4], &ShrinkOptions::new(), forward).unwrap_err();
    assert!(matches!(error, ShrinkError::Differs { .. }), "{error}");
}

#[test]
fn inputs_of_another_rank_and_silly_options_are_refused() {
    let device = Device::flex();
    let model = Mlp::new(&device);
    let forward = |model: &Mlp, x: Tensor<3>| model.forward(x.flatten(0, 1));
    let error = shrink(model.clone(), &[4], &ShrinkOptions::new(), forward).unwrap_err();
    assert!(matches!(error, ShrinkError::Input { rank: 3, .. }));
    let options = ShrinkOptions::new().with_tolerance(f64::NAN);
    let error = shrink(model, &[4], &options, Mlp::forward).unwrap_err();
    assert!(matches!(error, ShrinkError::Tolerance(_)));
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let device = Device::flex();
    let mut model = Mlp::new(&device);
    model.a.weight = model.a.weight.map(|weight| weight * f32::NAN);
    let graph = model.channel_graph(&[4]).unwrap();
    let error = ShrinkPlan::new(&model, &graph, &ShrinkOptions::new()).unwrap_err();
    assert!(matches!(error, ShrinkError::NonFinite { parameter } if parameter == "a.weight"));
}

#[test]
fn hostile_plans_are_refused() {
    let json = plan(&Mlp::new(&Device::flex())).to_json();
    assert!(ShrinkPlan::from_json(&json).is_ok());
    let keep = "\"keep\":[0,2,5]";
    assert!(json.contains(keep), "{json}");
    for bad in [
        "\"keep\":[0,2,6]",
        "\"keep\":[2,0,5]",
        "\"keep\":[0,0,5]",
        "\"keep\":[]",
        "\"keep\":[0,2,18446744073709551615]",
    ] {
        let error = ShrinkPlan::from_json(&json.replace(keep, bad)).unwrap_err();
        assert!(matches!(error, ShrinkError::Json(_)), "{error}");
    }
    let add = "\"parameter\":\"b.bias\"";
    assert!(json.contains(add), "{json}");
    for (from, to) in [
        (add, "\"parameter\":\"a.bias\""),
        ("\"axis\":0", "\"axis\":7"),
        ("\"shape\":[3]", "\"shape\":[4]"),
        ("\"cuts\"", "\"cutz\""),
    ] {
        assert!(json.contains(from), "{json}");
        assert!(ShrinkPlan::from_json(&json.replacen(from, to, 1)).is_err());
    }
}
