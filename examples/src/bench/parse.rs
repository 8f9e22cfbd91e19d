//! A layer from a line of text.

use std::str::FromStr;

use burn_sparse::ConvProblem;

use super::{Kind, Layer, LayerError, MAX_ELEMENTS};

impl Kind {
    /// The keys that a layer must have, and those it may have.
    const fn keys(self) -> (&'static [&'static str], &'static [&'static str]) {
        const WINDOW: &[&str] = &["stride", "padding", "dilation", "groups", "count"];
        match self {
            Self::Conv | Self::Conv1d => (&["in", "out", "size", "kernel"], WINDOW),
            Self::Linear => (&["in", "out"], &["rows", "count"]),
        }
    }
}

/// The keys and values of a line.
struct Keys<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Keys<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(k, _)| *k == key);
        found.map(|&(_, value)| value)
    }

    fn number(&self, key: &'static str, default: usize) -> Result<usize, LayerError> {
        self.get(key)
            .map_or(Ok(default), |value| number(key, value, value))
    }

    /// `N` for both axes or `NxM`; on one axis `N`, beside `other`.
    fn pair(
        &self,
        key: &'static str,
        kind: Kind,
        other: usize,
        default: usize,
    ) -> Result<[usize; 2], LayerError> {
        let Some(value) = self.get(key) else {
            return Ok([default, default]);
        };
        if kind == Kind::Conv1d {
            return Ok([other, number(key, value, value)?]);
        }
        match value.split_once('x') {
            Some((a, b)) => Ok([number(key, a, value)?, number(key, b, value)?]),
            None => number(key, value, value).map(|n| [n, n]),
        }
    }
}

/// Digits only: `usize`'s own parser also takes a sign.
fn number(key: &'static str, digits: &str, value: &str) -> Result<usize, LayerError> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let expected = match key {
            "size" | "kernel" | "stride" | "padding" | "dilation" => {
                "a whole number such as 3, or for two axes 3x5"
            }
            _ => "a whole number",
        };
        return Err(LayerError::Value {
            key,
            value: shortened(value),
            expected,
        });
    }
    digits.parse().map_err(|_| LayerError::Range {
        key,
        value: shortened(value),
        min: 0,
        max: MAX_ELEMENTS,
    })
}

/// Something from a file for an error message.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_string(),
    }
}

impl FromStr for Layer {
    type Err = LayerError;

    fn from_str(line: &str) -> Result<Self, LayerError> {
        let mut words = line.split_whitespace().peekable();
        let name = words.next_if(|word| !word.contains('='));
        let mut keys = Keys(Vec::new());
        for word in words {
            let Some((key, value)) = word.split_once('=') else {
                return Err(LayerError::Word(shortened(word)));
            };
            if keys.get(key).is_some() {
                return Err(LayerError::Twice(shortened(key)));
            }
            keys.0.push((key, value));
        }
        let kind = keys.get("kind").ok_or(LayerError::Missing("kind"))?;
        let kind = Kind::ALL
            .into_iter()
            .find(|k| k.name() == kind)
            .ok_or_else(|| LayerError::Kind(shortened(kind)))?;
        let (required, optional) = kind.keys();
        let known = || required.iter().chain(optional).copied();
        for (key, _) in &keys.0 {
            if *key != "kind" && !known().any(|k| k == *key) {
                return Err(LayerError::UnknownKey {
                    kind: kind.name(),
                    key: shortened(key),
                    known: known().collect::<Vec<_>>().join(", "),
                });
            }
        }
        if let Some(&missing) = required.iter().find(|key| keys.get(key).is_none()) {
            return Err(LayerError::Missing(missing));
        }
        let padding = keys.pair("padding", kind, 0, 0)?;
        let single = ConvProblem {
            batch: keys.number("rows", 1)?,
            in_channels: keys.number("in", 1)?,
            out_channels: keys.number("out", 1)?,
            input: keys.pair("size", kind, 1, 1)?,
            kernel: keys.pair("kernel", kind, 1, 1)?,
            stride: keys.pair("stride", kind, 1, 1)?,
            padding: padding.map(|p| [p, p]),
            dilation: keys.pair("dilation", kind, 1, 1)?,
            groups: keys.number("groups", 1)?,
        };
        let count = keys.number("count", 1)?;
        Self::new(name.unwrap_or_default(), kind, single, count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_back_as_written() {
        for line in [
            "c kind=conv in=8 out=6 size=9x7 kernel=3x1 stride=2x1 padding=1x0 dilation=2 groups=2 \
             count=3",
            "kind=conv in=1 out=1 size=4 kernel=1",
            "t kind=conv1d in=300 out=100 size=56 kernel=3 stride=2 padding=1",
            "fc kind=linear in=300 out=2 rows=5",
        ] {
            let layer: Layer = line.parse().unwrap();
            assert_eq!(layer.to_string(), line);
        }
        let text: Layer = "t kind=conv1d in=300 out=100 size=56 kernel=3 padding=1"
            .parse()
            .unwrap();
        let problem = text.problem(2).unwrap();
        assert_eq!(problem.output_shape(), [2, 100, 1, 56]);
        let fc: Layer = "fc kind=linear in=3 out=2 rows=5".parse().unwrap();
        assert_eq!(fc.problem(4).unwrap().output_shape(), [20, 2, 1, 1]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, says) in [
            ("", "kind is missing"),
            ("a b kind=linear in=1 out=1", "\"b\""),
            ("kind=lstm in=1 out=1", "choose conv"),
            ("kind=linear in=1 out=1 kernel=3", "no key \"kernel\""),
            ("kind=linear in=1", "out is missing"),
            ("kind=linear in=1 in=1 out=1", "twice"),
            ("kind=linear in=+1 out=1", "whole number"),
            ("kind=linear in=-1 out=1", "whole number"),
            ("kind=linear in= out=1", "whole number"),
            ("kind=linear in=0 out=1", "between 1"),
            ("kind=linear in=1 out=1 count=0", "between 1"),
            ("kind=linear in=1 out=99999999999999999999999", "between"),
            ("kind=linear in=100000 out=100000", "the weight"),
            ("kind=linear in=1 out=1 rows=268435457", "between"),
            ("kind=linear in=16384 out=16384 rows=16384", "multiply-adds"),
            ("kind=conv in=1 out=1 size=3 kernel=3x", "3x5"),
            ("kind=conv in=1 out=1 size=3x3x3 kernel=3", "3x5"),
            ("kind=conv in=1 out=1 size=2 kernel=3", "spans"),
            ("kind=conv in=3 out=4 size=2 kernel=1 groups=2", "divisible"),
            ("kind=conv in=1 out=1 size=9 kernel=1 groups=0", "between 1"),
            ("kind=conv in=1 out=1 size=9 kernel=1 stride=0", "between 1"),
            ("kind=conv in=1 out=1 size=9 kernel=5000", "4096"),
            ("kind=conv1d in=1 out=1 size=3x3 kernel=3", "whole number"),
            (
                "kind=conv in=1 out=1 size=100000x100000 kernel=1",
                "the input",
            ),
            (
                "kind=conv in=4096 out=1 size=64 kernel=1 padding=4096",
                "a padded image",
            ),
            (
                "kind=conv in=64 out=1 size=1000 kernel=7 padding=3",
                "columns",
            ),
        ] {
            let error = line.parse::<Layer>().unwrap_err().to_string();
            assert!(error.contains(says), "{line}: {error}");
            assert!(error.len() < 200, "{error}");
        }
        let long = format!("{} kind=linear in=1 out=1", "n".repeat(1000));
        assert!(matches!(long.parse::<Layer>(), Err(LayerError::Name(1000))));
        let long = format!("kind={}", "n".repeat(1000));
        assert!(long.parse::<Layer>().unwrap_err().to_string().len() < 200);
    }

    #[test]
    fn batches_are_checked_too() {
        let layer: Layer = "kind=linear in=1024 out=1024".parse().unwrap();
        assert!(layer.problem(1 << 17).is_ok());
        for batch in [0, 1 << 20, usize::MAX] {
            assert!(layer.problem(batch).is_err(), "{batch}");
        }
    }
}
