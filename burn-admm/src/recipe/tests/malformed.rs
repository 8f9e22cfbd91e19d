//! Recipes that are none.

use crate::Plan;
use crate::mapping::MapBudget;
use crate::quantize::{QuantPlan, Quantization};
use crate::recipe::{
    AdmmPruning, Choose, GradualPruning, OneShot, Pack, Quantise, Recipe, RecipeError, Shrink,
    Stage, Train,
};
use burn_sparse::Sparsity;

const PLAN: &str = r#"{"default":{"sparse":{"kind":"row_balanced","budget":{"sparsity":0.5}}}}"#;
const LEVELS: &str = r#"{"default":{"kind":"uniform","bits":3}}"#;

fn refused(stages: &str) -> String {
    let json = format!("{{\"stages\":[{stages}]}}")
        .replace("PLAN", PLAN)
        .replace("LEVELS", LEVELS);
    Recipe::from_json(&json).expect_err(stages).to_string()
}

#[test]
fn a_stage_that_is_wrong_is_named_with_its_field() {
    let cases = [
        (
            r#"{"stage":"trian","epochs":1}"#,
            "stages[0] (trian), field `stage`: there is no such stage; did you mean `train`?",
        ),
        (
            r#"{"stage":"distil"}"#,
            "stages[0] (distil), field `stage`: there is no such stage; there are `choose`, ",
        ),
        (r#"{"epochs":1}"#, "stages[0], field `stage`: it is missing"),
        (
            r#"{"stage":7}"#,
            "stages[0], field `stage`: invalid type: integer `7`",
        ),
        (
            r#"{"stage":"pack"},3"#,
            "stages[1], field `stage`: a stage is an object",
        ),
        (
            r#"{"stage":"train"}"#,
            "stages[0] (train), field `epochs`: it is missing",
        ),
        (
            r#"{"stage":"train","epochs":null}"#,
            "stages[0] (train), field `epochs`: it is missing",
        ),
        (
            r#"{"stage":"train","epochs":0}"#,
            "stages[0] (train), field `epochs`: expected 1 to 100000 epochs, got 0",
        ),
        (
            r#"{"stage":"train","epochs":-3}"#,
            "stages[0] (train), field `epochs`: invalid value: integer `-3`",
        ),
        (
            r#"{"stage":"train","epochs":2.5}"#,
            "stages[0] (train), field `epochs`: invalid type: floating point `2.5`",
        ),
        (
            r#"{"stage":"train","epochs":18446744073709551615}"#,
            "stages[0] (train), field `epochs`: expected 1 to 100000",
        ),
        (
            r#"{"stage":"train","epochs":1,"lr":0}"#,
            "stages[0] (train), field `lr`: it must be finite and above 0, got 0",
        ),
        (
            r#"{"stage":"train","epochs":1,"lr":"fast"}"#,
            "stages[0] (train), field `lr`: invalid type: string",
        ),
        (
            r#"{"stage":"train","epochs":1,"epoch":1}"#,
            "stages[0] (train), field `epoch`: there is no such field; did you mean `epochs`?",
        ),
        (
            r#"{"stage":"train","epochs":1},{"stage":"admm","plan":PLAN,"iterations":0}"#,
            "stages[1] (admm), field `iterations`: expected 1 to 100000 iterations, got 0",
        ),
        (
            r#"{"stage":"admm","iterations":1}"#,
            "stages[0] (admm), field `plan`: it is missing, and no stage before has chosen one",
        ),
        (
            r#"{"stage":"admm","plan":PLAN,"iterations":1,"config":{"rho":-1}}"#,
            "stages[0] (admm), field `config`: ADMM settings: rho must be positive",
        ),
        (
            r#"{"stage":"admm","plan":PLAN,"iterations":1,"config":{"roh":1}}"#,
            "stages[0] (admm), field `config`: unknown field `roh`",
        ),
        (
            r#"{"stage":"one_shot","plan":{"default":"thin"}}"#,
            "stages[0] (one_shot), field `plan`: unknown variant `thin`",
        ),
        (
            r#"{"stage":"one_shot","plan":{"default":{"sparse":{"kind":"row_balanced","budget":{"sparsity":1.5}}}}}"#,
            "stages[0] (one_shot), field `plan`: ",
        ),
        (
            r#"{"stage":"gradual","plan":PLAN,"epochs":2,"initial":1.0}"#,
            "stages[0] (gradual), field `initial`: it must lie from 0 to below 1, got 1",
        ),
        (
            r#"{"stage":"quantise"}"#,
            "stages[0] (quantise), field `plan`: it is missing",
        ),
        (
            r#"{"stage":"quantise","plan":{"default":{"kind":"uniform","bits":60}}}"#,
            "stages[0] (quantise), field `plan`: ",
        ),
        (
            r#"{"stage":"shrink","options":{"tolerance":-1}}"#,
            "stages[0] (shrink), field `options`: ",
        ),
        (
            r#"{"stage":"pack","choice":"best"}"#,
            "stages[0] (pack), field `choice`: unknown variant `best`",
        ),
        (
            r#"{"stage":"pack","min_sparsity":2}"#,
            "stages[0] (pack), field `min_sparsity`: it must lie from 0 to 1, got 2",
        ),
        (
            r#"{"stage":"pack","tolerance":0}"#,
            "stages[0] (pack), field `tolerance`: it must be finite and above 0, got 0",
        ),
        (
            r#"{"stage":"choose"}"#,
            "stages[0] (choose), field `budget`: it is missing",
        ),
        (
            r#"{"stage":"choose","budget":""}"#,
            "stages[0] (choose), field `budget`: the budget cannot be: it bounds nothing",
        ),
        (
            r#"{"stage":"choose","budget":"latency=0.5x,latency=0.2x"}"#,
            "stages[0] (choose), field `budget`: the budget cannot be: `latency` is bounded twice",
        ),
        (
            r#"{"stage":"choose","budget":"size=0.5x","by":"policy"}"#,
            "stages[0] (choose), field `budget`: rules and searches keep a bound on latency",
        ),
        (
            r#"{"stage":"choose","budget":"latency=0.5x","by":"luck"}"#,
            "stages[0] (choose), field `by`: unknown variant `luck`",
        ),
        (
            r#"{"stage":"choose","budget":"latency=0.5x","evaluations":0}"#,
            "stages[0] (choose), field `evaluations`: expected 1 to",
        ),
        (
            r#"{"stage":"choose","budget":"latency=0.5x","options":{"families":[]}}"#,
            "stages[0] (choose), field `options`: expected 1 to 4096 families, got 0",
        ),
        (
            r#"{"stage":"choose","budget":"latency=0.5x","options":{"sparsities":[1.0]}}"#,
            "stages[0] (choose), field `options`: it must lie from 0 to below 1",
        ),
    ];
    for (stages, expected) in cases {
        let error = refused(stages);
        assert!(error.starts_with(expected), "{stages}\n{error}\n{expected}");
    }
}

#[test]
fn stages_that_contradict_each_other_are_refused() {
    let prune = r#"{"stage":"one_shot","plan":PLAN}"#;
    let follow = r#"{"stage":"one_shot"}"#;
    let choose = r#"{"stage":"choose","budget":"size=0.5x"}"#;
    let levels = r#"{"stage":"quantise","plan":LEVELS}"#;
    let train = r#"{"stage":"train","epochs":1}"#;
    let (shrink, pack) = (r#"{"stage":"shrink"}"#, r#"{"stage":"pack"}"#);
    let cases: [(&[&str], &str); 9] = [
        (
            &[pack, train],
            "stages[0] (pack): packing must be the last stage, and `train` follows",
        ),
        (
            &[pack, pack],
            "stages[1] (pack): the network is packed already",
        ),
        (
            &[levels, prune],
            "stages[1] (one_shot): masks would take the levels away",
        ),
        (
            &[levels, train, levels],
            "stages[2] (quantise): the weights are on levels already",
        ),
        (
            &[shrink, train],
            "stages[1] (train): after channels were cut out only packing may follow",
        ),
        (
            &[prune, choose, follow],
            "stages[1] (choose): a plan is chosen for the dense network",
        ),
        (
            &[choose, follow, choose, follow],
            "stages[2] (choose): a plan was chosen already",
        ),
        (
            &[choose, train],
            "stages[0] (choose): no later stage follows what it chooses",
        ),
        (
            &[choose, prune],
            "stages[0] (choose): no later stage follows what it chooses",
        ),
    ];
    for (stages, expected) in cases {
        let error = refused(&stages.join(","));
        assert!(error.starts_with(expected), "{error}\n{expected}");
    }
}

#[test]
fn text_that_is_no_recipe_is_refused() {
    let cases = [
        ("", "not a recipe: EOF"),
        ("[]", "not a recipe: expected an object"),
        ("{}", "not a recipe: there is no list `stages`"),
        (r#"{"stages":{}}"#, "not a recipe: `stages` is no list"),
        (
            r#"{"stages":[],"seed":1}"#,
            "not a recipe: there is no field `seed`",
        ),
        (r#"{"stages":[]}"#, "a recipe has 1 to 64 stages, not 0"),
        (
            r#"{"stages":[{"stage":"train","epochs":1e999}]}"#,
            "not a recipe: number out of range",
        ),
    ];
    for (json, expected) in cases {
        let error = Recipe::from_json(json).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{json}: {error}");
    }
    let many = vec![r#"{"stage":"train","epochs":1}"#; 65].join(",");
    assert_eq!(refused(&many), "a recipe has 1 to 64 stages, not 65");
    let long = " ".repeat(1 << 18) + "{}";
    assert!(matches!(
        Recipe::from_json(&long),
        Err(RecipeError::Json(_))
    ));
    let deep = "[".repeat(10_000);
    assert!(matches!(
        Recipe::from_json(&deep),
        Err(RecipeError::Json(_))
    ));
    // A name as long as the text allows is not repeated.
    assert!(refused(&format!(r#"{{"stage":"{}"}}"#, "x".repeat(100_000))).len() < 300);
}

#[test]
fn recipes_that_are_built_are_checked_too() {
    let refused = |stage: Stage| Recipe::new([stage]).unwrap_err().to_string();
    let error = refused(Choose::new(MapBudget::default()).into());
    assert!(error.contains("field `budget`"), "{error}");
    let error = refused(OneShot::default().into());
    assert!(error.contains("field `plan`"), "{error}");
    let lr = Some(f64::NAN);
    let error = refused(Train { epochs: 1, lr }.into());
    assert!(error.contains("field `lr`"), "{error}");
    assert!(matches!(Recipe::new([]), Err(RecipeError::Stages(0))));
}

#[test]
fn json_there_and_back() {
    let plan = || Plan::new(Sparsity::row_balanced(0.5).unwrap());
    let mut admm = AdmmPruning::new(None, 3);
    admm.lr = Some(0.0125);
    let levels = QuantPlan::new(Quantization::uniform(3).unwrap());
    let recipe = Recipe::new([
        Stage::from(Choose::new("latency=0.5x,loss=1".parse().unwrap())),
        Train::new(4).into(),
        admm.into(),
        GradualPruning::new(plan(), 5).into(),
        OneShot { plan: Some(plan()) }.into(),
        Quantise::new(levels, 2).into(),
        Shrink::default().into(),
        Pack::default().into(),
    ])
    .unwrap();
    assert_eq!(Recipe::from_json(&recipe.to_json()).unwrap(), recipe);
    let value = serde_json::to_value(&recipe).unwrap();
    assert_eq!(value["stages"][0]["budget"], "latency=0.5x,loss=1");
    assert_eq!(serde_json::from_value::<Recipe>(value).unwrap(), recipe);
    assert_eq!(recipe.epochs(), 4 + 3 + 5 + 2);
}
