//! Folders with one sub-folder of images per class, the layout of CIFAR in the cache and of
//! everybody's own images.

use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{DataError, balanced_subset};

/// The image files below a folder, sorted by class and name.
pub(crate) struct Listing {
    /// Names of the class folders that hold images, sorted.
    pub(crate) classes: Vec<String>,
    /// Class folders without a single image.
    pub(crate) empty: Vec<String>,
    /// Files with the number of their class.
    pub(crate) files: Vec<(PathBuf, u32)>,
}

impl Listing {
    /// The class of every file.
    pub(crate) fn labels(&self) -> Vec<u32> {
        self.files.iter().map(|(_, label)| *label).collect()
    }

    /// Keeps a seeded, class-balanced choice of at most `limit` files.
    pub(crate) fn limit(&mut self, limit: Option<usize>, seed: u64) {
        if let Some(limit) = limit {
            let chosen = balanced_subset(&self.labels(), self.classes.len(), limit, seed);
            self.files = chosen.into_iter().map(|i| self.files[i].clone()).collect();
        }
    }

    /// Renumbers the classes after `known` (the training classes).
    pub(crate) fn number_after(&mut self, known: &[String], root: &Path) -> Result<(), DataError> {
        let mut numbers = Vec::with_capacity(self.classes.len());
        for class in &self.classes {
            match known.binary_search(class) {
                Ok(number) => numbers.push(number as u32),
                Err(_) => {
                    return Err(DataError::UnknownClass {
                        class: class.clone(),
                        path: root.to_path_buf(),
                        known: known.iter().take(12).cloned().collect(),
                    });
                }
            }
        }
        for (_, label) in &mut self.files {
            *label = numbers[*label as usize];
        }
        self.classes = known.to_vec();
        Ok(())
    }
}

/// Lists `root/<class>/*.{png,jpg,jpeg}`; hidden folders and other files are passed over.
pub(crate) fn list(root: &Path) -> Result<Listing, DataError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root).map_err(|e| DataError::io(root, e))? {
        let entry = entry.map_err(|e| DataError::io(root, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && entry.path().is_dir() {
            names.push((name, entry.path()));
        }
    }
    names.sort();
    let lists: Vec<Vec<PathBuf>> = names
        .par_iter()
        .map(|(_, path)| list_images(path))
        .collect::<Result<_, _>>()?;
    let (mut classes, mut empty, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for ((name, _), list) in names.into_iter().zip(lists) {
        if list.is_empty() {
            empty.push(name);
            continue;
        }
        let label = classes.len() as u32;
        files.extend(list.into_iter().map(|path| (path, label)));
        classes.push(name);
    }
    if files.is_empty() {
        return Err(DataError::Empty {
            path: root.to_path_buf(),
            wanted: "one sub-folder per class with .png, .jpg or .jpeg files in it",
        });
    }
    Ok(Listing {
        classes,
        empty,
        files,
    })
}

fn list_images(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| DataError::io(folder, e))? {
        let path = entry.map_err(|e| DataError::io(folder, e))?.path();
        let extension = path
            .extension()
            .map(|e| e.to_string_lossy().to_ascii_lowercase());
        if matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::write_image;

    #[test]
    fn lists_sorted_and_passes_over_what_is_no_image() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/2.png", "b/1.JPG", "a/x.jpeg", ".cache/no.png"] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        fs::write(dir.path().join("a/readme.txt"), b"").unwrap();
        fs::write(dir.path().join("stray.png"), b"").unwrap();
        fs::create_dir(dir.path().join("c")).unwrap();
        let listing = list(dir.path()).unwrap();
        assert_eq!(listing.classes, ["a", "b"]);
        assert_eq!(listing.empty, ["c"]);
        let names: Vec<_> = listing
            .files
            .iter()
            .map(|(p, l)| (p.strip_prefix(dir.path()).unwrap(), *l))
            .collect();
        assert_eq!(
            names,
            [
                (Path::new("a/x.jpeg"), 0),
                (Path::new("b/1.JPG"), 1),
                (Path::new("b/2.png"), 1)
            ]
        );
    }

    #[test]
    fn an_empty_or_missing_folder_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = list(dir.path()).err().unwrap();
        assert!(matches!(error, DataError::Empty { .. }));
        assert!(
            error
                .to_string()
                .contains(&dir.path().display().to_string())
        );
        assert!(matches!(
            list(&dir.path().join("no")).err().unwrap(),
            DataError::Io { .. }
        ));
    }

    #[test]
    fn a_surplus_test_class_is_named() {
        let dir = tempfile::tempdir().unwrap();
        write_image(&dir.path().join("bird/1.png"), 2, 2, 0);
        let known = ["cat".to_string(), "dog".to_string()];
        let error = list(dir.path())
            .unwrap()
            .number_after(&known, dir.path())
            .unwrap_err();
        assert!(error.to_string().contains("bird") && error.to_string().contains("cat"));
        let mut listing = list(dir.path()).unwrap();
        listing
            .number_after(&["ant".into(), "bird".into()], dir.path())
            .unwrap();
        assert_eq!(listing.labels(), [1]);
    }
}
