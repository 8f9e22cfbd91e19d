//! The tensors of a checkpoint, compared with its manifest and with a model.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::SafeTensors;

use super::fail;
use super::manifest::{LayerEntry, Manifest};
use super::survey::{Layer, Survey};
use crate::SparseError;

/// The tensors of a checkpoint, their checksums verified.
pub(super) struct Tensors<'a> {
    at: &'a str,
    pub(super) layers: BTreeMap<&'a str, &'a LayerEntry>,
    pub(super) manifest: &'a Manifest,
    pub(super) views: SafeTensors<'a>,
}

/// ` (and 3 more)` after the first of `count`.
fn more(count: usize) -> String {
    if count > 1 {
        format!(" (and {} more)", count - 1)
    } else {
        String::new()
    }
}

impl<'a> Tensors<'a> {
    /// Compares what the format says, what the manifest says and what is there.
    pub(super) fn new(
        bytes: &'a [u8],
        manifest: &'a Manifest,
        at: &'a str,
    ) -> Result<Self, SparseError> {
        let views = SafeTensors::deserialize(bytes)
            .map_err(|error| fail(at, format!("it is no valid safetensors file: {error}")))?;
        if views.len() != manifest.tensors.len() {
            let (found, listed) = (views.len(), manifest.tensors.len());
            return Err(fail(
                at,
                format!("it has {found} tensors, its manifest lists {listed}"),
            ));
        }
        for (name, entry) in &manifest.tensors {
            let view = views
                .tensor(name)
                .map_err(|error| fail(at, format!("its manifest lists `{name}`: {error}")))?;
            if view.dtype().to_string() != entry.dtype || view.shape() != entry.shape {
                let reason = format!(
                    "`{name}` is {} {:?}, but {} {:?} in the manifest",
                    view.dtype(),
                    view.shape(),
                    entry.dtype,
                    entry.shape
                );
                return Err(fail(at, reason));
            }
            if crc32fast::hash(view.data()) != entry.crc32 {
                let reason = format!(
                    "`{name}` does not match its checksum; the file is damaged, take another copy"
                );
                return Err(fail(at, reason));
            }
        }
        let layers = manifest
            .layers
            .iter()
            .map(|entry| (entry.weight.as_str(), entry))
            .collect();
        Ok(Self {
            at,
            layers,
            manifest,
            views,
        })
    }

    pub(super) fn at(&self) -> &'a str {
        self.at
    }

    pub(super) fn fail(&self, reason: impl core::fmt::Display) -> SparseError {
        fail(self.at, reason)
    }

    pub(super) fn is_packed(&self, path: &str) -> bool {
        self.layers
            .get(path)
            .is_some_and(|entry| entry.packed.is_some())
    }

    /// The same layers, of the same kinds and shapes.
    pub(super) fn check_layers(&self, layers: &[Layer]) -> Result<(), SparseError> {
        let own: BTreeSet<&str> = layers.iter().map(|layer| layer.path.as_str()).collect();
        let mut missing = own.iter().filter(|path| !self.layers.contains_key(**path));
        if let Some(first) = missing.next() {
            return Err(self.fail(format!(
                "it has no layer with the weight `{first}`{}, which this model has; build the \
                 model as the one that was saved",
                more(1 + missing.count())
            )));
        }
        let mut unexpected = self.layers.keys().filter(|path| !own.contains(**path));
        if let Some(first) = unexpected.next() {
            return Err(self.fail(format!(
                "it has a layer with the weight `{first}`{}, which this model has not; build the \
                 model as the one that was saved",
                more(1 + unexpected.count())
            )));
        }
        if self.layers.len() != self.manifest.layers.len() || own.len() != layers.len() {
            return Err(self.fail("two of its layers have the same name"));
        }
        for layer in layers {
            let entry = self.layers[layer.path.as_str()];
            let (kind, shape) = (layer.weight.kind(), layer.weight.shape());
            if entry.kind != kind || entry.shape != shape {
                return Err(self.fail(format!(
                    "`{}` is a {} weight {:?}, in this model a {kind} weight {shape:?}; build the \
                     model as the one that was saved",
                    layer.path, entry.kind, entry.shape
                )));
            }
        }
        Ok(())
    }

    /// The tensors that the layers and the other parameters need, and no more.
    pub(super) fn check_names(&self, survey: &Survey) -> Result<(), SparseError> {
        let (mut wanted, mut dense) = (BTreeSet::new(), BTreeSet::new());
        for layer in &survey.layers {
            let path = &layer.path;
            let Some(packed) = &self.layers[path.as_str()].packed else {
                dense.insert(path.as_str());
                continue;
            };
            wanted.insert(format!("{path}.values"));
            wanted.insert(format!("{path}.{}", packed.index.name()));
        }
        let others = survey.tensors.iter().map(|dense| dense.path.as_str());
        dense.extend(others.filter(|path| !self.is_packed(path)));
        for path in &dense {
            if self.manifest.sparse.contains_key(*path) {
                wanted.extend([format!("{path}.values"), format!("{path}.mask")]);
            } else {
                wanted.insert((*path).to_string());
            }
        }
        let sparse = self.manifest.sparse.keys();
        let mut stray = sparse.filter(|path| !dense.contains(path.as_str()));
        if let Some(first) = stray.next() {
            let count = 1 + stray.count();
            return Err(self.fail(format!(
                "it lists `{first}`{} as sparse, for which this model has no place; build the \
                 model as the one that was saved",
                more(count)
            )));
        }

        let has = |name: &String| self.manifest.tensors.contains_key(name);
        let mut missing = wanted.iter().filter(|name| !has(name));
        if let Some(first) = missing.next() {
            let count = 1 + missing.count();
            return Err(self.fail(format!(
                "it has no tensor `{first}`{}, which this model needs; build the model as the one \
                 that was saved",
                more(count)
            )));
        }
        let mut unexpected = self
            .manifest
            .tensors
            .keys()
            .filter(|name| !wanted.contains(*name));
        if let Some(first) = unexpected.next() {
            let count = 1 + unexpected.count();
            return Err(self.fail(format!(
                "it has a tensor `{first}`{}, for which this model has no place; build the model \
                 as the one that was saved",
                more(count)
            )));
        }
        Ok(())
    }
}
