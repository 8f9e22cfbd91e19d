//! Named lists of layers: those of published networks, or a file of one's own.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Layer, LayerError};

/// Longest file that is read.
const MAX_BYTES: u64 = 1 << 20;
/// Most layers of a suite.
const MAX_LAYERS: usize = 4096;

/// The suites that every build contains.
const BUILT_IN: [(&str, &str); 5] = [
    ("resnet50", include_str!("../../suites/resnet50.txt")),
    ("vgg16", include_str!("../../suites/vgg16.txt")),
    ("densenet121", include_str!("../../suites/densenet121.txt")),
    ("text_cnn", include_str!("../../suites/text_cnn.txt")),
    (
        "text_cnn_short",
        include_str!("../../suites/text_cnn_short.txt"),
    ),
];

/// Why there is no such suite.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// Neither a name nor a file.
    #[error(
        "{asked:?} is neither a suite (resnet50, vgg16, densenet121, text_cnn, text_cnn_short) nor a file"
    )]
    Unknown {
        /// What was asked for.
        asked: String,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file is too long, or no text.
    #[error("{}: {reason}", path.display())]
    NoSuite {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A line that is no layer.
    #[error("{origin}, line {line}: {source}")]
    Line {
        /// The suite.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        source: LayerError,
    },
    /// Two layers with one name.
    #[error("{origin}, line {line}: the name {name:?} was used in line {first}")]
    Name {
        /// The suite.
        origin: String,
        /// The line, from 1.
        line: usize,
        /// The name.
        name: String,
        /// Where it was used first.
        first: usize,
    },
    /// More layers than anybody measures.
    #[error("{origin}, line {line}: more than {MAX_LAYERS} layers")]
    TooMany {
        /// The suite.
        origin: String,
        /// The line, from 1.
        line: usize,
    },
    /// Nothing in it.
    #[error("{origin}: no layers")]
    Empty {
        /// The suite.
        origin: String,
    },
}

/// Layers under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suite {
    /// Its name, or that of its file.
    pub name: String,
    /// Its layers, each named once.
    pub layers: Vec<Layer>,
}

impl Suite {
    /// The names of the suites that every build contains.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|&(name, _)| name)
    }

    /// The suite of that name, or else in that file.
    ///
    /// # Errors
    /// [`SuiteError`], with the line where there is one.
    ///
    /// ```
    /// let suite = examples::bench::Suite::open("resnet50")?;
    /// let convolutions: usize = suite.layers[..23].iter().map(|layer| layer.count()).sum();
    /// assert_eq!(convolutions, 53);
    /// # Ok::<(), examples::bench::SuiteError>(())
    /// ```
    pub fn open(asked: &str) -> Result<Self, SuiteError> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == asked) {
            return Self::parse(name, text);
        }
        let path = Path::new(asked);
        if !path.exists() {
            return Err(SuiteError::Unknown {
                asked: asked.chars().take(200).collect(),
            });
        }
        Self::parse(asked, &read(path)?)
    }

    /// Reads a suite: one layer a line, `#` before comments.
    ///
    /// # Errors
    /// [`SuiteError`] with the first line that is wrong.
    pub fn parse(origin: &str, text: &str) -> Result<Self, SuiteError> {
        let mut layers: Vec<(usize, Layer)> = Vec::new();
        let mut names = HashSet::new();
        for (line, content) in (1..).zip(text.lines()) {
            let content = content.split('#').next().unwrap_or_default().trim();
            if content.is_empty() {
                continue;
            }
            let origin = || origin.to_string();
            if layers.len() == MAX_LAYERS {
                let origin = origin();
                return Err(SuiteError::TooMany { origin, line });
            }
            let layer: Layer = content.parse().map_err(|source| SuiteError::Line {
                origin: origin(),
                line,
                source,
            })?;
            let name = layer.name().to_string();
            if !names.insert(name.clone()) {
                let first = layers.iter().find(|(_, other)| other.name() == name);
                return Err(SuiteError::Name {
                    origin: origin(),
                    line,
                    first: first.map_or(line, |&(first, _)| first),
                    name,
                });
            }
            layers.push((line, layer));
        }
        if layers.is_empty() {
            let origin = origin.to_string();
            return Err(SuiteError::Empty { origin });
        }
        Ok(Self {
            name: origin.to_string(),
            layers: layers.into_iter().map(|(_, layer)| layer).collect(),
        })
    }
}

fn read(path: &Path) -> Result<String, SuiteError> {
    let io = |source| SuiteError::Io {
        path: path.to_path_buf(),
        source,
    };
    let no_suite = |reason: String| SuiteError::NoSuite {
        path: path.to_path_buf(),
        reason,
    };
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(io)?.take(MAX_BYTES + 1);
    file.read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(no_suite(format!("longer than {MAX_BYTES} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| no_suite(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weights and multiply-adds of all layers, by count.
    fn totals(name: &str) -> (usize, u64) {
        let suite = Suite::open(name).unwrap();
        suite.layers.iter().fold((0, 0), |(weights, macs), layer| {
            let problem = layer.problem(1).unwrap();
            let count = layer.count();
            (
                weights + count * problem.weight_shape().iter().product::<usize>(),
                macs + count as u64 * problem.dense_macs(),
            )
        })
    }

    #[test]
    fn the_networks_have_their_published_sizes() {
        use models::{ResNetConfig, VggConfig};
        let resnet = ResNetConfig::resnet50(1000).summary([224, 224]);
        let (weights, macs) = totals("resnet50");
        assert_eq!((weights as u64, macs), (resnet.weights(), resnet.macs()));
        // 138 357 544 parameters, 13 416 of them biases.
        assert_eq!(totals("vgg16"), (138_344_128, 15_470_264_320));
        let vgg = VggConfig::vgg16(1000).summary([224, 224]);
        let (weights, macs) = totals("vgg16");
        assert_eq!((weights as u64, macs), (vgg.weights(), vgg.macs()));
        // 7 978 856 parameters, of batch norms 83 648 and of the classifier's bias 1000.
        assert_eq!(totals("densenet121"), (7_894_208, 2_834_161_664));
        // Kim 2014: 100 filters each over 3, 4 and 5 words of 300, and a layer of 300 by 2.
        assert_eq!(totals("text_cnn").0, 300 * 100 * (3 + 4 + 5) + 300 * 2);
        assert_eq!(totals("text_cnn_short").0, 300 * 100 * (2 + 3));
        assert_eq!(Suite::names().count(), 5);
    }

    #[test]
    fn errors_name_file_and_line() {
        let layer = |name: &str| format!("{name} kind=linear in=1 out=1\n");
        for (text, says) in [
            (String::new(), "no layers"),
            ("# nothing\n\n".into(), "no layers"),
            (format!("# a\n{}x y\n", layer("a")), "s, line 3"),
            (
                format!("{}\n{}", layer("a"), layer("a")),
                "line 3: the name \"a\" was used in line 1",
            ),
            (
                (0..5000).map(|i| layer(&format!("l{i}"))).collect(),
                "line 4097: more than",
            ),
        ] {
            let error = Suite::parse("s", &text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let suite = Suite::parse("s", &format!("{} # last", layer("a").trim())).unwrap();
        assert_eq!(suite.layers.len(), 1);
    }

    #[test]
    fn files_that_are_no_suites_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.txt");
        let open = || Suite::open(path.to_str().unwrap());
        assert!(matches!(open(), Err(SuiteError::Unknown { .. })));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(matches!(open(), Err(SuiteError::NoSuite { .. })));
        std::fs::write(&path, vec![b'#'; 2 << 20]).unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("longer"), "{error}");
        std::fs::write(&path, b"kind=linear in=2 out=3").unwrap();
        assert_eq!(open().unwrap().layers[0].name(), "kind=linear in=2 out=3");
        let folder = Suite::open(dir.path().to_str().unwrap());
        assert!(matches!(folder, Err(SuiteError::Io { .. })));
    }
}
