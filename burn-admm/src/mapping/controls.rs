//! Networks that were not chosen layer by layer from offers: what choices are compared with.

use burn_sparse::SparseError;

use super::{Family, LayerOptions, Mapping, MappingError, Offers, Selection};

impl Offers {
    /// The network whose layers all have the same scheme, at the same sparsity; layers that the scheme is not for, or
    /// that were not offered it, stay dense. `layers` are those that the offers were made of.
    ///
    /// # Errors
    /// [`MappingError::Settings`] for a sparsity outside 0 to 1.
    ///
    /// # Example
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_admm::mapping::{
    ///     Family, LatencyTable, LayerOptions, OptionConfig, Offers, Rest, Sensitivity, layer_options,
    /// };
    /// use burn_sparse::nn::{Conv2d, Conv2dConfig, Trace};
    ///
    /// let device = Device::flex();
    /// let model = [3, 1, 3].map(|k| Conv2dConfig::new([8, 8], [k, k]).init(&device));
    /// let x = Tensor::<4>::ones([1, 8, 9, 9], &device);
    /// let trace = Trace::of(|| drop(model.iter().fold(x, |x, conv| conv.forward(x))));
    /// let config = OptionConfig { sparsities: vec![0.75], ..OptionConfig::default() };
    /// let layers = layer_options(&model, &trace, &config)?;
    /// let mut table = LatencyTable::new("this machine");
    /// let cases: Vec<_> = layers.iter().flat_map(LayerOptions::cases).collect();
    /// table.measure(&cases, &device, |_, _, _| Ok(()))?;
    /// let mut known = Sensitivity::new("these weights");
    /// known.measure(&model, &layers, |_: &[Conv2d; 3]| Ok(0.0), |_, _, _| Ok(()))?;
    /// let offers = Offers::new(&layers, &table, &known, Rest::default())?;
    ///
    /// // The first convolution stays as it is, and single weights have no positions to punch.
    /// let punched = offers.everywhere(&layers, Family::Punched([8, 4]), 0.75)?;
    /// let schemes = punched.mapping.layers.iter().map(|layer| layer.sparsity.is_some());
    /// assert_eq!(schemes.collect::<Vec<_>>(), [false, true]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn everywhere(
        &self,
        layers: &[LayerOptions],
        family: Family,
        sparsity: f64,
    ) -> Result<Selection, MappingError> {
        let settings = |error: SparseError| MappingError::Settings(error.to_string());
        let mut chosen = Vec::with_capacity(self.layers.len());
        for offered in &self.layers {
            let options = layers.iter().find(|layer| layer.path == offered.path);
            let scheme = match options {
                Some(options) => family.at(sparsity, options.shape).map_err(settings)?,
                None => None,
            };
            let mut offers = offered.offers.iter();
            let at =
                scheme.and_then(|scheme| offers.position(|offer| offer.sparsity == Some(scheme)));
            chosen.push(at.unwrap_or(0));
        }
        Ok(self.selection(&chosen))
    }

    /// Milliseconds of the network with a mapping that came about otherwise: times of its decisions, shortened as those
    /// of the offers were, and the rest. A layer without a decision, or without times, counts as dense.
    pub fn ms_of(&self, mapping: &Mapping) -> f64 {
        let of_layer = |path: &str, dense: f64| {
            let decision = mapping.layers.iter().find(|layer| layer.path == path);
            match decision.and_then(|layer| layer.ms) {
                Some([own, mapped]) => (self.shortened[0] * own).min(self.shortened[1] * mapped),
                None => dense,
            }
        };
        let layers = self.layers.iter().filter_map(|layer| {
            let dense = layer.offers.first()?;
            Some(of_layer(&layer.path, dense.ms))
        });
        self.rest.ms + layers.sum::<f64>()
    }
}
