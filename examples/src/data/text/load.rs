//! The way in: the reviews, with drawn sentences standing in where they cannot be had.

use super::{TextConfig, TextDataset, drawn, reviews};
use crate::data::{DataError, LoadOptions};

/// Loads the [movie reviews](reviews); where they are nowhere to be had, draws [sentences](drawn)
/// instead and puts a notice into [`TextDataset::notices`].
///
/// A folder that was named (`options.data`) is never replaced: if it cannot be loaded, that is an
/// error.
///
/// # Errors
/// Those of [`reviews::load`], except [`DataError::Missing`].
pub fn load(options: &LoadOptions, config: &TextConfig) -> Result<TextDataset, DataError> {
    or_drawn(reviews::load(options, config), options, config)
}

fn or_drawn(
    found: Result<TextDataset, DataError>,
    options: &LoadOptions,
    config: &TextConfig,
) -> Result<TextDataset, DataError> {
    match found {
        Err(error) if error.is_missing() => {
            let mut set = drawn::load(options, config)?;
            set.notices.push(format!(
                "training on drawn sentences instead of movie-reviews; their accuracies say \
                 nothing about those. Why: {error}"
            ));
            Ok(set)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_reviews_are_replaced_and_said_so_but_a_named_folder_never() {
        let options = LoadOptions {
            limit: Some(40),
            test_limit: Some(10),
            ..LoadOptions::default()
        };
        let config = TextConfig::default();
        let missing = Err(DataError::Missing {
            dataset: "movie-reviews",
            tried: vec!["not in the cache".into()],
            help: "Point --data at a copy".into(),
        });
        let set = or_drawn(missing, &options, &config).unwrap();
        assert_eq!((set.name.as_str(), set.test.len()), ("drawn-sentences", 10));
        assert!(set.summary().contains("instead of movie-reviews"));
        assert!(set.notices[0].contains("not in the cache"));
        let dir = tempfile::tempdir().unwrap();
        let named = LoadOptions {
            data: Some(dir.path().into()),
            ..options
        };
        assert!(load(&named, &config).is_err());
    }
}
