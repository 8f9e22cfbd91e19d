use regex::Regex;
use serde::{Deserialize, Serialize};

use super::PlanError;

/// A glob over dotted parameter paths.
///
/// It has to match the whole path. `?` is one character and `*` any number of characters of one
/// component; `**`, a component of its own, is any number of components.
///
/// # Example
/// ```
/// use burn_admm::plan::Pattern;
///
/// assert!(Pattern::new("layer1.*.conv?.weight")?.matches("layer1.0.conv2.weight"));
/// assert!(Pattern::new("layer1.**")?.matches("layer1.0.conv2.weight"));
/// assert!(Pattern::new("**.weight")?.matches("weight"));
/// assert!(!Pattern::new("layer1")?.matches("layer1.0.conv2.weight"));
/// assert!(Pattern::new("layer1.**x").is_err());
/// # Ok::<(), burn_admm::PlanError>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern {
    text: String,
    regex: Regex,
}

/// Longer patterns than any real path are refused rather than compiled.
const MAX_LEN: usize = 1024;

impl Pattern {
    /// Reads a glob.
    ///
    /// # Errors
    /// [`PlanError::Pattern`] for an empty pattern or component, one longer than 1024 bytes, and
    /// `**` beside other characters.
    pub fn new(text: impl Into<String>) -> Result<Self, PlanError> {
        let text = text.into();
        let regex = compile(&text).map_err(|reason| PlanError::Pattern {
            pattern: text.clone(),
            reason,
        })?;
        Ok(Self { text, regex })
    }

    /// Whether the whole `path` matches.
    pub fn matches(&self, path: &str) -> bool {
        self.regex.is_match(path)
    }

    /// Whether the pattern has no wildcard, so that it names exactly one parameter.
    pub fn is_literal(&self) -> bool {
        !self.text.contains(['*', '?'])
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn compile(text: &str) -> Result<Regex, String> {
    if text.len() > MAX_LEN {
        return Err(format!(
            "{} bytes long; at most {MAX_LEN} are allowed",
            text.len()
        ));
    }
    let components: Vec<&str> = text.split('.').collect();
    if components.iter().any(|component| component.is_empty()) {
        return Err("empty component; write components separated by single dots".to_owned());
    }
    let last = components.len() - 1;
    let mut regex = String::from(r"\A");
    let mut dot = false;
    for (i, component) in components.iter().enumerate() {
        if *component == "**" {
            // Zero or more components together with the dot that separates them from a neighbour.
            match (dot, i == last) {
                (false, true) => regex.push_str(".*"),
                (false, false) => regex.push_str(r"(?:[^.]+\.)*"),
                (true, _) => {
                    regex.push_str(r"(?:\.[^.]+)*");
                    continue;
                }
            }
            dot = false;
            continue;
        }
        if component.contains("**") {
            return Err("`**` must be a component of its own, as in `layer1.**`".to_owned());
        }
        if dot {
            regex.push_str(r"\.");
        }
        for c in component.chars() {
            match c {
                '*' => regex.push_str("[^.]*"),
                '?' => regex.push_str("[^.]"),
                c => regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
            }
        }
        dot = true;
    }
    regex.push_str(r"\z");
    Regex::new(&regex).map_err(|error| error.to_string())
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl core::fmt::Display for Pattern {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PlanError;

    fn try_from(text: String) -> Result<Self, PlanError> {
        Self::new(text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}
