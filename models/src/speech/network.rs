//! The network.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn_sparse::nn::{Gru, GruConfig, Linear, LinearConfig};

use super::{Pooling, SpeechGruConfig};

/// A classifier of recordings of different lengths: recurrent layers, pooling over the frames that a
/// recording has, one product.
///
/// ```text
/// h¹ = GRU(x), h² = GRU(h¹), …      states after each frame
/// p  = 1/n Σ_{t<n} h_t  or  h_{n-1}  n frames, whatever follows them
/// y  = p W + b
/// ```
///
/// It looks at no frame before its turn, so it also runs while somebody speaks: [`step`](Self::step)
/// takes one frame, and [`classify`](Self::classify) says at any time what was heard so far.
///
/// # Example
/// ```
/// use burn::tensor::{Device, Distribution, Int, Tensor};
/// use models::SpeechGruConfig;
///
/// let device = Device::flex();
/// let model = SpeechGruConfig::new(40, 10).with_hidden(32).init(&device)?;
/// // Two recordings, the second of 7 frames and padded to 12.
/// let x = Tensor::<3>::random([2, 12, 40], Distribution::Default, &device);
/// let lengths = Tensor::<1, Int>::from_data([12, 7], &device);
/// let logits = model.forward(x.clone(), lengths);
/// assert_eq!(logits.dims(), [2, 10]);
///
/// // The second again, frame by frame.
/// let mut state = model.start(1, &device);
/// for t in 0..7 {
///     let frame = x.clone().slice([1..2, t..t + 1]).squeeze_dim::<2>(1);
///     state = model.step(frame, state);
/// }
/// let difference = (model.classify(&state) - logits.narrow(0, 1, 1)).abs().max();
/// assert!(difference.into_scalar::<f32>() < 1e-5);
/// # Ok::<(), models::SpeechGruError>(())
/// ```
#[derive(Module, Debug)]
pub struct SpeechGru {
    /// The recurrent layers, the first one next to the features.
    pub gru: Vec<Gru>,
    /// The classifier.
    pub head: Linear,
    /// How the states of a recording become one vector.
    #[module(skip)]
    pooling: Pooling,
}

/// What a [`SpeechGru`] remembers of the frames that it has heard.
#[derive(Clone, Debug)]
pub struct SpeechState {
    /// The state of each layer, `[batch, hidden]`.
    hidden: Vec<Tensor<2>>,
    /// The sum of all states of the last layer, `[batch, hidden]`, if their mean is wanted.
    sum: Option<Tensor<2>>,
    frames: usize,
}

impl SpeechState {
    /// Frames heard.
    pub fn frames(&self) -> usize {
        self.frames
    }
}

impl SpeechGru {
    pub(super) fn new(config: &SpeechGruConfig, device: &Device) -> Self {
        let gru = (0..config.layers).map(|layer| {
            let inputs = if layer == 0 {
                config.features
            } else {
                config.hidden
            };
            GruConfig::new(inputs, config.hidden, true).init(device)
        });
        Self {
            gru: gru.collect(),
            head: LinearConfig::new(config.hidden, config.classes).init(device),
            pooling: config.pooling,
        }
    }

    /// Class scores before the softmax.
    ///
    /// # Shapes
    /// - `features`: `[batch, time, features]`; what follows a recording's end may be anything
    /// - `lengths`: `[batch]`, frames of each recording; values outside `1..=time` count as the
    ///   nearest inside
    /// - output: `[batch, classes]`
    ///
    /// # Panics
    /// On shapes that do not fit, and without frames.
    pub fn forward(&self, features: Tensor<3>, lengths: Tensor<1, Int>) -> Tensor<2> {
        let [batch, time, _] = features.dims();
        assert!(
            time > 0 && lengths.dims() == [batch],
            "SpeechGru: features {:?} with {:?} lengths; a recording needs one frame at least and a \
             length",
            features.dims(),
            lengths.dims()
        );
        let states = self
            .gru
            .iter()
            .fold(features, |x, gru| gru.forward(x, None));
        self.head.forward(self.pool(states, lengths))
    }

    /// `[batch, time, hidden]` to `[batch, hidden]`.
    fn pool(&self, states: Tensor<3>, lengths: Tensor<1, Int>) -> Tensor<2> {
        let [batch, time, size] = states.dims();
        let lengths = lengths.clamp(1, time as i64);
        match self.pooling {
            Pooling::Mean => {
                let frames = Tensor::<1, Int>::arange(0..time as i64, &states.device());
                let frames = frames.reshape([1, time, 1]).expand([batch, time, size]);
                let ends = lengths.clone().reshape([batch, 1, 1]);
                let over = frames.greater_equal(ends.expand([batch, time, size]));
                // Filled, not multiplied: a NaN behind the end stays there.
                let sum = states.mask_fill(over, 0.0).sum_dim(1).squeeze_dim::<2>(1);
                sum / lengths.float().reshape([batch, 1])
            }
            Pooling::Last => {
                let last = (lengths - 1).reshape([batch, 1, 1]);
                let last = last.expand([batch, 1, size]);
                states.gather(1, last).squeeze_dim(1)
            }
        }
    }

    /// The state before the first frame of `batch` recordings.
    pub fn start(&self, batch: usize, device: &Device) -> SpeechState {
        let zeros = |gru: &Gru| Tensor::zeros([batch, gru.d_hidden], device);
        SpeechState {
            hidden: self.gru.iter().map(zeros).collect(),
            sum: match self.pooling {
                Pooling::Mean => self.gru.last().map(zeros),
                Pooling::Last => None,
            },
            frames: 0,
        }
    }

    /// Listens to one more frame of each recording, `[batch, features]`.
    ///
    /// # Panics
    /// On shapes that do not fit, and for a state of a network with other layers or pooling.
    pub fn step(&self, frame: Tensor<2>, state: SpeechState) -> SpeechState {
        assert!(
            state.hidden.len() == self.gru.len()
                && state.sum.is_some() == (self.pooling == Pooling::Mean),
            "SpeechGru: a state of {} layers for a network of {}, which pools by {:?}; begin with \
             its own `start`",
            state.hidden.len(),
            self.gru.len(),
            self.pooling
        );
        let mut x = frame;
        let mut hidden = Vec::with_capacity(self.gru.len());
        for (gru, before) in self.gru.iter().zip(state.hidden) {
            x = gru.step(x, Some(before));
            hidden.push(x.clone());
        }
        SpeechState {
            hidden,
            sum: state.sum.map(|sum| sum + x),
            frames: state.frames + 1,
        }
    }

    /// Class scores of what was heard so far, `[batch, classes]`; those of an empty recording are
    /// the bias.
    ///
    /// # Panics
    /// For a state of a network with another hidden size.
    pub fn classify(&self, state: &SpeechState) -> Tensor<2> {
        let pooled = match &state.sum {
            Some(sum) => sum.clone() / state.frames.max(1) as f32,
            // A network has a layer, and so has a state that it began.
            None => state.hidden[state.hidden.len() - 1].clone(),
        };
        self.head.forward(pooled)
    }

    /// How the states of a recording become one vector.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    /// Scores for so many classes.
    pub fn classes(&self) -> usize {
        self.head.weight.dims()[1]
    }
}
