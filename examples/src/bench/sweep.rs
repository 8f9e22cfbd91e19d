//! The points of a growth plot, before they are measured.

use regex::Regex;

use super::{Axis, BenchError, Case, Curve, Layer, Suite};

/// The layers that `--suite` and `--layer` name together; without a suite, `--layer` describes
/// them.
///
/// # Errors
/// [`BenchError`] for what cannot be read, and where no layer is found.
pub(super) fn layers(suite: Option<&str>, asked: &[String]) -> Result<Vec<Layer>, BenchError> {
    let Some(suite) = suite else {
        if asked.is_empty() {
            return Err(BenchError::Settings(
                "no layer; give --layer 'kind=conv in=64 out=64 size=56 kernel=3 padding=1', or \
                 --suite resnet50 --layer REGEX"
                    .into(),
            ));
        }
        let layers = asked.iter().map(|text| {
            text.parse().map_err(|source| BenchError::Layer {
                text: text.chars().take(200).collect(),
                source,
            })
        });
        return layers.collect();
    };
    let mut layers = Suite::open(suite)?.layers;
    let patterns = asked.iter().map(|text| Regex::new(text));
    let patterns: Vec<_> = patterns.collect::<Result<_, _>>()?;
    if !patterns.is_empty() {
        layers.retain(|layer| patterns.iter().any(|p| p.is_match(layer.name())));
    }
    if layers.is_empty() {
        return Err(BenchError::Settings(format!(
            "--layer {}: no layer of {suite} has such a name",
            asked.join(" --layer ")
        )));
    }
    Ok(layers)
}

/// At most `most` of some layers, evenly from all.
pub(super) fn some(layers: Vec<Layer>, most: usize) -> Vec<Layer> {
    let all = layers.len();
    if all <= most || most < 2 {
        return layers.into_iter().take(most).collect();
    }
    let chosen: Vec<usize> = (0..most).map(|i| i * (all - 1) / (most - 1)).collect();
    let layers = layers.into_iter().enumerate();
    layers
        .filter(|(index, _)| chosen.contains(index))
        .map(|(_, layer)| layer)
        .collect()
}

/// A curve and the cases of its points, by value.
pub(super) type Planned = (Curve, Vec<(f64, Case)>);

/// What to measure for each curve: `values`, or the usual ones if there are none. Values that a
/// layer cannot have are noted in its curve.
///
/// # Errors
/// [`BenchError::Settings`] for values that are not on the axis.
pub(super) fn plan(
    axis: Axis,
    cases: &[Case],
    values: &[f64],
    threads: usize,
    few: bool,
) -> Result<Vec<Planned>, BenchError> {
    let mut values = values.to_vec();
    for &value in &values {
        axis.check(value)
            .map_err(|reason| BenchError::Settings(format!("--values: {reason}")))?;
    }
    values.sort_by(f64::total_cmp);
    values.dedup();
    let mut planned = Vec::new();
    for case in cases {
        let mut curve = Curve::new(axis, case);
        let mut points = Vec::new();
        let usual = values.is_empty();
        let tried = if usual {
            axis.values(&case.layer, threads, few)
        } else {
            values.clone()
        };
        for value in tried {
            match axis.at(case, value) {
                Ok(case) => points.push((value, case)),
                Err(error) => curve.skipped.push(format!("{}: {error}", axis.show(value))),
            }
        }
        planned.push((curve, points));
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Dtype, Pattern, cases};

    fn asked(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn layers_come_from_suites_or_from_the_command_line() {
        let found = layers(Some("resnet50"), &asked(&["layer..conv2$", "^fc"])).unwrap();
        assert_eq!(found.len(), 5);
        let found = layers(None, &asked(&["kind=linear in=3 out=2"])).unwrap();
        assert_eq!(found[0].shape(), "kind=linear in=3 out=2");
        assert_eq!(layers(Some("text_cnn"), &[]).unwrap().len(), 4);
        for (suite, texts, says) in [
            (Some("resnet50"), &["nothing"][..], "no layer of resnet50"),
            (Some("resnet50"), &["("], "--layer"),
            (Some("resnet51"), &[], "neither a suite"),
            (None, &[], "no layer"),
            (None, &["conv"], "kind is missing"),
        ] {
            let error = layers(suite, &asked(texts)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn some_layers_include_the_first_and_the_last() {
        let all = Suite::open("resnet50").unwrap().layers;
        let few = some(all.clone(), 6);
        assert_eq!((few.len(), &few[0], &few[5]), (6, &all[0], &all[23]));
        assert_eq!(some(all.clone(), 100), all);
        assert_eq!(some(all.clone(), 1), all[..1]);
    }

    #[test]
    fn values_that_a_layer_cannot_have_are_noted() {
        let layers = layers(None, &asked(&["kind=conv in=4 out=4 size=8 kernel=5"])).unwrap();
        let pattern = [Pattern::Unstructured];
        let cases = cases(&layers, &[0.9], &pattern, &[1], &[Dtype::F32]);
        let planned = plan(Axis::Image, &cases, &[16.0, 8.0, 4.0, 8.0], 1, true).unwrap();
        let (curve, points) = &planned[0];
        let values: Vec<_> = points.iter().map(|point| point.0).collect();
        assert_eq!(values, [8.0, 16.0]);
        assert!(curve.skipped[0].starts_with("4: kernel"), "{curve:?}");
        let error = plan(Axis::Image, &cases, &[0.5], 1, true).unwrap_err();
        assert!(error.to_string().contains("whole numbers"), "{error}");
    }
}
