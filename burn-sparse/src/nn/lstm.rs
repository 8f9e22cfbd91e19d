//! Long short-term memory.

use burn::config::Config;
use burn::module::{Content, DisplaySettings, Module, ModuleDisplay};
use burn::nn::{
    Initializer, LstmState,
    activation::{Activation as GateActivation, ActivationConfig},
};
use burn::tensor::{Device, Tensor};

use super::{
    Activation, Linear,
    linear::Operands,
    recurrent::{activate, check_state, fuse, gates, sequence, time_step},
};
use crate::{SparseError, ops::lstm_cell};

/// Configuration of an [`Lstm`]; the fields and builders of `burn::nn::LstmConfig`.
#[derive(Config, Debug)]
pub struct LstmConfig {
    /// Input features.
    pub d_input: usize,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether biases are added.
    pub bias: bool,
    /// How the parameters of each gate start.
    #[config(default = "Initializer::XavierNormal{gain:1.0}")]
    pub initializer: Initializer,
    /// Whether sequences are `[batch, steps, features]`; otherwise `[steps, batch, features]`.
    #[config(default = true)]
    pub batch_first: bool,
    /// Whether a sequence is read from its end.
    #[config(default = false)]
    pub reverse: bool,
    /// Largest magnitude of a cell state, if it is clipped after each step.
    pub clip: Option<f64>,
    /// Whether the forget gate is one minus the input gate, and has no weights of its own.
    #[config(default = false)]
    pub input_forget: bool,
    /// Activation of the input, forget and output gates.
    #[config(default = "ActivationConfig::Sigmoid")]
    pub gate_activation: ActivationConfig,
    /// Activation of the candidate cell state.
    #[config(default = "ActivationConfig::Tanh")]
    pub cell_activation: ActivationConfig,
    /// Activation of the cell state in the hidden state.
    #[config(default = "ActivationConfig::Tanh")]
    pub hidden_activation: ActivationConfig,
}

impl LstmConfig {
    /// A dense layer, each gate initialised as Burn's.
    pub fn init(&self, device: &Device) -> Lstm {
        burn::nn::LstmConfig::new(self.d_input, self.d_hidden, self.bias)
            .with_initializer(self.initializer.clone())
            .with_batch_first(self.batch_first)
            .with_reverse(self.reverse)
            .with_clip(self.clip)
            .with_input_forget(self.input_forget)
            .with_gate_activation(self.gate_activation.clone())
            .with_cell_activation(self.cell_activation.clone())
            .with_hidden_activation(self.hidden_activation.clone())
            .init(device)
            .into()
    }
}

/// A long short-term memory whose matrices are dense or packed.
///
/// For each time step, from the input `x`, the hidden state `h` and the cell state `c` before it,
/// with `⊙` the product element by element and `σ` the gate activation:
///
/// ```text
/// i  = σ(x Wi + bi + h Ui + ci)          input gate
/// f  = σ(x Wf + bf + h Uf + cf)          forget gate, or 1 - i if input_forget
/// o  = σ(x Wo + bo + h Uo + co)          output gate
/// g  = tanh(x Wg + bg + h Ug + cg)       candidate cell state
/// c' = f ⊙ c + i ⊙ g
/// h' = o ⊙ tanh(c')
/// ```
///
/// after Hochreiter and Schmidhuber, "Long Short-Term Memory" (1997), with the forget gate of Gers,
/// Schmidhuber and Cummins, "Learning to Forget" (2000), section 3.
///
/// The gates lie side by side, in Burn's order: [`input`](Self::input) holds `[Wi | Wf | Wo | Wg]`
/// and [`state`](Self::state) `[Ui | Uf | Uo | Ug]` (PyTorch has `g` before `o`), so that all inputs
/// of a sequence take one product and each step one more. The output channels of a gate are
/// neighbours: patterns over blocks of them stay within a gate if the height of a block divides
/// `d_hidden`. With `input_forget` the forget gate's part is missing.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_sparse::nn::LstmConfig;
///
/// let device = Device::flex();
/// let lstm = LstmConfig::new(5, 7, true).init(&device);
/// let x = Tensor::<3>::random([2, 4, 5], Distribution::Default, &device);
/// let (states, last) = lstm.forward(x.clone(), None);
/// assert_eq!((states.dims(), last.cell.dims()), ([2, 4, 7], [2, 7]));
/// let (packed, _) = lstm.pack()?.forward(x, None);
/// assert!((packed - states).abs().max().into_scalar::<f32>() < 1e-5);
/// # Ok::<(), burn_sparse::SparseError>(())
/// ```
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Lstm {
    /// Input, forget, output and cell gates of the input, `[d_input, gates · d_hidden]` with four
    /// gates, or three if `input_forget`.
    pub input: Linear,
    /// The same gates of the hidden state, `[d_hidden, gates · d_hidden]`.
    pub state: Linear,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether sequences are `[batch, steps, features]`; otherwise `[steps, batch, features]`.
    pub batch_first: bool,
    /// Whether a sequence is read from its end.
    pub reverse: bool,
    /// Largest magnitude of a cell state, if it is clipped after each step.
    pub clip: Option<f64>,
    /// Whether the forget gate is one minus the input gate.
    pub input_forget: bool,
    /// Activation of the input, forget and output gates.
    pub gate_activation: GateActivation,
    /// Activation of the candidate cell state.
    pub cell_activation: GateActivation,
    /// Activation of the cell state in the hidden state.
    pub hidden_activation: GateActivation,
}

impl ModuleDisplay for Lstm {
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
            .optional()
    }
}

impl From<burn::nn::Lstm> for Lstm {
    /// # Panics
    /// If the layer has neither a forget gate nor `input_forget`: Burn's would panic when it runs.
    fn from(lstm: burn::nn::Lstm) -> Self {
        let mut gates = vec![&lstm.input_gate];
        if !lstm.input_forget {
            let forget = lstm.forget_gate.as_ref();
            gates.push(forget.expect("an Lstm without `input_forget` has a forget gate"));
        }
        gates.extend([&lstm.output_gate, &lstm.cell_gate]);
        let inputs: Vec<_> = gates.iter().map(|gate| &gate.input_transform).collect();
        let states: Vec<_> = gates.iter().map(|gate| &gate.hidden_transform).collect();
        Self {
            input: fuse(&inputs),
            state: fuse(&states),
            d_hidden: lstm.d_hidden,
            batch_first: lstm.batch_first,
            reverse: lstm.reverse,
            clip: lstm.clip,
            input_forget: lstm.input_forget,
            gate_activation: lstm.gate_activation,
            cell_activation: lstm.cell_activation,
            hidden_activation: lstm.hidden_activation,
        }
    }
}

impl Lstm {
    /// The hidden states after each step of a sequence, from `state` or zeros on, and the last
    /// state.
    ///
    /// # Shapes
    /// - input `[batch, steps, d_input]`, or `[steps, batch, d_input]` without `batch_first`
    /// - cell and hidden state `[batch, d_hidden]`
    /// - output as the input, with `d_hidden` features
    ///
    /// # Panics
    /// On shapes that do not fit.
    pub fn forward(
        &self,
        batched_input: Tensor<3>,
        state: Option<LstmState<2>>,
    ) -> (Tensor<3>, LstmState<2>) {
        let shape = batched_input.dims();
        self.check_input(shape, shape[2]);
        let axis = usize::from(self.batch_first);
        let (steps, batch) = (shape[axis], shape[1 - axis]);
        let device = batched_input.device();
        let mut state = self.initial(state, batch, &device);
        let mut states = Vec::with_capacity(steps);
        if steps > 0 {
            let inputs = self.input.forward(batched_input);
            let product = self.state.operands();
            for t in 0..steps {
                let t = if self.reverse { steps - 1 - t } else { t };
                state = self.advance(&product, time_step(&inputs, axis, t), state);
                states.push(state.hidden.clone());
            }
        }
        if self.reverse {
            states.reverse();
        }
        let states = sequence(states, axis, [batch, self.d_hidden], &device);
        (states, state)
    }

    /// The state after one more time step: what [`forward`](Self::forward) does to each of a
    /// sequence, for inputs that arrive one by one. The output of the step is its hidden state.
    ///
    /// # Shapes
    /// - input `[batch, d_input]`
    /// - cell and hidden states `[batch, d_hidden]`
    ///
    /// # Panics
    /// On shapes that do not fit.
    ///
    /// # Example
    /// ```
    /// use burn::tensor::{Device, Tensor};
    /// use burn_sparse::nn::LstmConfig;
    ///
    /// let device = Device::flex();
    /// let lstm = LstmConfig::new(3, 4, true).init(&device);
    /// let mut state = None;
    /// for _ in 0..10 {
    ///     let x = Tensor::<2>::ones([1, 3], &device);
    ///     state = Some(lstm.step(x, state));
    /// }
    /// assert_eq!(state.unwrap().hidden.dims(), [1, 4]);
    /// ```
    pub fn step(&self, input: Tensor<2>, state: Option<LstmState<2>>) -> LstmState<2> {
        let [batch, d_input] = input.dims();
        self.check_input(input.dims(), d_input);
        let state = self.initial(state, batch, &input.device());
        let inputs = self.input.forward(input);
        self.advance(&self.state.operands(), inputs, state)
    }

    fn check_input<const D: usize>(&self, shape: [usize; D], d_input: usize) {
        let [expected, _] = self.input.weight.dims();
        assert!(
            d_input == expected,
            "Lstm: input {shape:?}, but the layer has {expected} input features"
        );
    }

    fn initial(&self, state: Option<LstmState<2>>, batch: usize, device: &Device) -> LstmState<2> {
        let shape = [batch, self.d_hidden];
        let state = state.unwrap_or_else(|| LstmState::initial(shape, device));
        check_state("Lstm", state.cell.dims(), batch, self.d_hidden);
        check_state("Lstm", state.hidden.dims(), batch, self.d_hidden);
        state
    }

    /// One step from the input's products, `[batch, gates · d_hidden]`.
    fn advance(&self, product: &Operands, inputs: Tensor<2>, state: LstmState<2>) -> LstmState<2> {
        let d = self.d_hidden;
        let LstmState { cell, hidden } = state;
        let sums = product.run(hidden, Some(inputs), Activation::None);
        if self.is_plain()
            && let Some([cell, hidden]) = lstm_cell(&sums, &cell)
        {
            return LstmState { cell, hidden };
        }
        // The cell gate is the last one, of four or, with coupled gates, three.
        let last = 3 - usize::from(self.input_forget);
        let gated = activate(&self.gate_activation, gates(&sums, [0, last], d), d);
        let input = gates(&gated, [0, 1], d);
        let forget = if self.input_forget {
            input.clone().neg().add_scalar(1.0)
        } else {
            gates(&gated, [1, 2], d)
        };
        let output = gates(&gated, [last - 1, last], d);
        let candidate = gates(&sums, [last, last + 1], d);
        let candidate = self.cell_activation.forward(candidate);
        let mut cell = forget * cell + input * candidate;
        if let Some(clip) = self.clip {
            cell = cell.clamp(-clip, clip);
        }
        let hidden = output * self.hidden_activation.forward(cell.clone());
        LstmState { cell, hidden }
    }

    /// Whether there are four gates, and nothing but the usual functions follows the products.
    fn is_plain(&self) -> bool {
        let tanh = |activation| matches!(activation, &GateActivation::Tanh(_));
        matches!(self.gate_activation, GateActivation::Sigmoid(_))
            && tanh(&self.cell_activation)
            && tanh(&self.hidden_activation)
            && self.clip.is_none()
            && !self.input_forget
    }

    /// Keeps only the non-zeros of both matrices; see [`Weight::pack`](super::Weight::pack). Whole
    /// models: [`pack`](crate::pack).
    ///
    /// # Errors
    /// [`SparseError::NonFinite`] for a NaN or an infinity.
    pub fn pack(mut self) -> Result<Self, SparseError> {
        self.input = self.input.pack()?;
        self.state = self.state.pack()?;
        Ok(self)
    }

    /// The dense layer again.
    #[must_use]
    pub fn unpack(mut self) -> Self {
        self.input = self.input.unpack();
        self.state = self.state.unpack();
        self
    }
}
