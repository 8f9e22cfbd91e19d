//! Gated recurrent unit.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::{
    Initializer,
    activation::{Activation as GateActivation, ActivationConfig},
};
use burn::tensor::{Device, Tensor};

use super::{
    Activation, Linear,
    linear::Operands,
    recurrent::{activate, check_state, fuse, gates, sequence, time_step},
};
use crate::{SparseError, ops::gru_cell};

/// Configuration of a [`Gru`]; the fields and builders of `burn::nn::gru::GruConfig`.
#[derive(Config, Debug)]
pub struct GruConfig {
    /// Input features.
    pub d_input: usize,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether biases are added.
    pub bias: bool,
    /// Whether the reset gate scales the candidate's state product (as in PyTorch) or the state
    /// before it is multiplied; see [`Gru`].
    #[config(default = true)]
    pub reset_after: bool,
    /// How the parameters of each gate start.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Activation of the update and reset gates.
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// Activation of the candidate state.
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
    /// Largest magnitude of a hidden state, if it is clipped after each step.
    pub clip: Option<f64>,
}

impl GruConfig {
    /// A dense layer, each gate initialised as Burn's.
    pub fn init(&self, device: &Device) -> Gru {
        burn::nn::gru::GruConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_reset_after(self.reset_after)
            .with_initializer(self.initializer.clone())
            .with_gate_activation(self.gate_activation.clone())
            .with_hidden_activation(self.hidden_activation.clone())
            .with_clip(self.clip)
            .init(device)
            .into()
    }
}

/// A gated recurrent unit whose matrices are dense or packed.
///
/// For each time step, from the input `x` and the state `h` before it, with `⊙` the product element
/// by element and `σ` the gate activation:
///
/// ```text
/// z  = σ(x Wz + bz + h Uz + cz)                      update gate
/// r  = σ(x Wr + br + h Ur + cr)                      reset gate
/// n  = tanh(x Wn + bn + r ⊙ (h Un + cn))             candidate, if reset_after
/// n  = tanh(x Wn + bn + (r ⊙ h) Un + cn)             candidate, otherwise
/// h' = (1 - z) ⊙ n + z ⊙ h
/// ```
///
/// after Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical
/// Machine Translation" (2014), section 2.3: its first version resets after the product, as PyTorch
/// does, its later ones before.
///
/// The gates lie side by side, in Burn's order: [`input`](Self::input) holds `[Wz | Wr | Wn]` and
/// [`state`](Self::state) `[Uz | Ur | Un]` (PyTorch has `r` before `z`), so that all inputs of a sequence take one product and
/// each step one more. The output channels of a gate are neighbours: patterns over blocks of them
/// stay within a gate if the height of a block divides `d_hidden`. With `reset_after = false` the
/// candidate multiplies another vector, `r ⊙ h`, and its matrix `Un` stands apart in
/// [`candidate`](Self::candidate): two products each step.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::GruConfig;
///
/// let device = Device::flex();
/// let gru = GruConfig::new(5, 7, true).init(&device);
/// let x = Tensor::<3>::random([2, 4, 5], Distribution::Default, &device);
/// let states = gru.forward(x.clone(), None);
/// assert_eq!(states.dims(), [2, 4, 7]);
/// let packed = gru.pack()?.forward(x, None);
/// assert!((packed - states).abs().max().into_scalar::<f32>() < 1e-5);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Gru {
    /// Update, reset and candidate of the input, `[d_input, 3 · d_hidden]`.
    pub input: Linear,
    /// Update, reset and candidate of the state, `[d_hidden, 3 · d_hidden]`; without the candidate,
    /// `[d_hidden, 2 · d_hidden]`, if `reset_after` is false.
    pub state: Linear,
    /// The candidate of the reset state, `[d_hidden, d_hidden]`, if `reset_after` is false.
    pub candidate: Option<Linear>,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether the reset gate scales the candidate's state product instead of the state.
    pub reset_after: bool,
    /// Activation of the update and reset gates.
    pub gate_activation: GateActivation,
    /// Activation of the candidate state.
    pub hidden_activation: GateActivation,
    /// Largest magnitude of a hidden state, if it is clipped after each step.
    pub clip: Option<f64>,
}

impl ModuleDisplay for Gru {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        DisplaySettings::new()
            .with_new_line_after_attribute(false)
            .optional()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_input, _] = self.input.weight.dims();
        content
            .add("d_input", &d_input)
            .add("d_hidden", &self.d_hidden)
            .add("bias", &self.input.bias.is_some())
            .add("reset_after", &self.reset_after)
            .optional()
    }
}

impl From<burn::nn::gru::Gru> for Gru {
    fn from(gru: burn::nn::gru::Gru) -> Self {
        let (update, reset, new) = (&gru.update_gate, &gru.reset_gate, &gru.new_gate);
        let mut state = vec![&update.hidden_transform, &reset.hidden_transform];
        let candidate = if gru.reset_after {
            state.push(&new.hidden_transform);
            None
        } else {
            Some(fuse(&[&new.hidden_transform]))
        };
        Self {
            input: fuse(&[
                &update.input_transform,
                &reset.input_transform,
                &new.input_transform,
            ]),
            state: fuse(&state),
            candidate,
            d_hidden: gru.d_hidden,
            reset_after: gru.reset_after,
            gate_activation: gru.gate_activation,
            hidden_activation: gru.hidden_activation,
            clip: gru.clip,
        }
    }
}

/// The state's matrices as they are while a sequence runs.
struct StateProducts {
    state: Operands,
    candidate: Option<Operands>,
}

impl Gru {
    /// The states after each step of a sequence, from `state` or zeros on.
    ///
    /// # Shapes
    /// - input `[batch, steps, d_input]`
    /// - state `[batch, d_hidden]`
    /// - output `[batch, steps, d_hidden]`; its last step is the state to go on from
    ///
    /// # Panics
    /// On shapes that do not fit.
    pub fn forward(&self, batched_input: Tensor<3>, state: Option<Tensor<2>>) -> Tensor<3> {
        let [batch, steps, d_input] = batched_input.dims();
        self.check_input(batched_input.dims(), d_input);
        let device = batched_input.device();
        let mut hidden = self.initial(state, batch, &device);
        let mut states = Vec::with_capacity(steps);
        if steps > 0 {
            let inputs = self.input.forward(batched_input);
            let products = self.state_products();
            for t in 0..steps {
                hidden = self.advance(&products, time_step(&inputs, 1, t), hidden);
                states.push(hidden.clone());
            }
        }
        sequence(states, 1, [batch, self.d_hidden], &device)
    }

    /// The state after one more time step: what [`forward`](Self::forward) does to each of a
    /// sequence, for inputs that arrive one by one.
    ///
    /// # Shapes
    /// - input `[batch, d_input]`
    /// - state and output `[batch, d_hidden]`
    ///
    /// # Panics
    /// On shapes that do not fit.
    ///
    /// # Example
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_sparse::nn::GruConfig;
    ///
    /// let device = Device::flex();
    /// let gru = GruConfig::new(3, 4, true).init(&device);
    /// let mut state = None;
    /// for _ in 0..10 {
    ///     let x = Tensor::<2>::ones([1, 3], &device);
    ///     state = Some(gru.step(x, state));
    /// }
    /// assert_eq!(state.unwrap().dims(), [1, 4]);
    /// ```
    pub fn step(&self, input: Tensor<2>, state: Option<Tensor<2>>) -> Tensor<2> {
        let [batch, d_input] = input.dims();
        self.check_input(input.dims(), d_input);
        let hidden = self.initial(state, batch, &input.device());
        let inputs = self.input.forward(input);
        self.advance(&self.state_products(), inputs, hidden)
    }

    fn check_input<const D: usize>(&self, shape: [usize; D], d_input: usize) {
        let [expected, _] = self.input.weight.dims();
        assert!(
            d_input == expected,
            "Gru: input {shape:?}, but the layer has {expected} input features"
        );
    }

    fn initial(&self, state: Option<Tensor<2>>, batch: usize, device: &Device) -> Tensor<2> {
        let state = state.unwrap_or_else(|| Tensor::zeros([batch, self.d_hidden], device));
        check_state("Gru", state.dims(), batch, self.d_hidden);
        state
    }

    fn state_products(&self) -> StateProducts {
        StateProducts {
            state: self.state.operands(),
            candidate: self.candidate.as_ref().map(Linear::operands),
        }
    }

    /// One step from the input's products, `[batch, 3 · d_hidden]`.
    fn advance(&self, products: &StateProducts, inputs: Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        let d = self.d_hidden;
        let product = |operands: &Operands, x: &Tensor<2>, residual| {
            operands.run(x.clone(), residual, Activation::None)
        };
        let (update, new) = match &products.candidate {
            None => {
                let sums = product(&products.state, &hidden, None);
                if self.is_plain()
                    && let Some(hidden) = gru_cell(&inputs, &sums, &hidden)
                {
                    return hidden;
                }
                let gated = gates(&inputs, [0, 2], d) + gates(&sums, [0, 2], d);
                let gated = activate(&self.gate_activation, gated, d);
                let reset = gates(&gated, [1, 2], d);
                let new = gates(&inputs, [2, 3], d) + reset * gates(&sums, [2, 3], d);
                (gated, new)
            }
            Some(candidate) => {
                let new_input = gates(&inputs, [2, 3], d);
                let inputs = gates(&inputs, [0, 2], d);
                let gated = product(&products.state, &hidden, Some(inputs));
                let gated = activate(&self.gate_activation, gated, d);
                let reset = gates(&gated, [1, 2], d) * hidden.clone();
                (gated, product(candidate, &reset, Some(new_input)))
            }
        };
        let new = self.hidden_activation.forward(new);
        let update = gates(&update, [0, 1], d);
        let hidden = new * update.clone().neg().add_scalar(1.0) + update * hidden;
        match self.clip {
            Some(clip) => hidden.clamp(-clip, clip),
            None => hidden,
        }
    }

    /// Whether nothing but the usual functions follows the products.
    fn is_plain(&self) -> bool {
        let gates = matches!(self.gate_activation, GateActivation::Sigmoid(_));
        gates && matches!(self.hidden_activation, GateActivation::Tanh(_)) && self.clip.is_none()
    }

    /// Keeps only the non-zeros of all matrices; see [`Weight::pack`](super::Weight::pack). Whole
    /// models: [`pack`](crate::pack).
    ///
    /// # Errors
    /// [`SparseError::NonFinite`] for a NaN or an infinity.
    pub fn pack(mut self) -> Result<Self, SparseError> {
        self.input = self.input.pack()?;
        self.state = self.state.pack()?;
        self.candidate = self.candidate.map(Linear::pack).transpose()?;
        Ok(self)
    }

    /// The dense layer again.
    #[must_use]
    pub fn unpack(mut self) -> Self {
        self.input = self.input.unpack();
        self.state = self.state.unpack();
        self.candidate = self.candidate.map(Linear::unpack);
        self
    }
}
