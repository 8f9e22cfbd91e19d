//! Which channels are needed.

use std::collections::HashMap;

use super::{Classes, Layer, Values};
use crate::shrink::{ChannelGraph, Constants, Emptied, Op, ShrinkError, ShrinkOptions};

/// Why a class of channels stays; the node is the one that wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::shrink) enum Cause {
    /// It enters or leaves the network, or an operation that cannot be cut has it.
    Fixed(usize),
    /// A kept filter of that layer reads it.
    Read(usize),
    /// As a constant, under zero padding.
    Border(usize),
    /// As a constant, and the layer has neither a bias nor a norm that could take it.
    NoBias(usize),
    /// That node would have no channel left.
    Last,
}

/// Where a layer can put the constants of inputs that are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::shrink) enum Sink {
    /// Its own bias.
    Bias,
    /// The running means of the norms that alone read it: `y − (mean − c)` is `(y + c) − mean`.
    Means(Vec<usize>),
}

/// Everything that is known about a model with respect to cutting channels out.
pub(in crate::shrink) struct Analysis<'a> {
    pub(in crate::shrink) graph: &'a ChannelGraph,
    pub(in crate::shrink) layers: Vec<Option<Layer>>,
    pub(in crate::shrink) values: Values<'a>,
    /// The nodes that read each node.
    readers: Vec<Vec<usize>>,
    /// Per node, per channel: why it stays, or that it goes.
    causes: Vec<Vec<Option<Cause>>>,
    /// Per node, per channel: whether a sum ties it to others.
    joined: Vec<Vec<bool>>,
}

impl<'a> Analysis<'a> {
    /// Marks what is needed, from the outputs back to the inputs: a class of channels stays where
    /// the network needs it as it is, or where a filter that stays reads it as anything but a
    /// constant that can be folded. What is never reached is cut.
    ///
    /// The marks only grow, so the result is the smallest set that keeps the output, and the fixed
    /// point of removing unread filters and unused inputs in turn.
    pub(in crate::shrink) fn new(
        graph: &'a ChannelGraph,
        layers: Vec<Option<Layer>>,
        options: &ShrinkOptions,
    ) -> Result<Self, ShrinkError> {
        let values = Values::new(graph, &layers, options.constants);
        let mut readers = vec![Vec::new(); layers.len()];
        for (node, reads) in graph.nodes().iter().enumerate() {
            reads
                .inputs
                .iter()
                .for_each(|&input| readers[input].push(node));
        }
        let mut analysis = Self {
            graph,
            layers,
            values,
            readers,
            causes: Vec::new(),
            joined: Vec::new(),
        };
        let mut marks = Marks::new(&analysis, options);
        marks.fixed(&analysis, options.depthwise);
        marks.spread(&analysis);
        while let Some(node) = marks.empty_node(graph) {
            if options.emptied == Emptied::Refuse {
                return Err(ShrinkError::Emptied {
                    layer: graph.nodes()[node].op.label(),
                });
            }
            let class = marks.classes.of(node, analysis.cheapest(node));
            marks.keep(class, Cause::Last);
            marks.spread(&analysis);
        }
        (analysis.causes, analysis.joined) = marks.finish(graph);
        Ok(analysis)
    }

    /// The channel of a node that draws the fewest others with it.
    fn cheapest(&self, node: usize) -> usize {
        let Some(Layer::Matrix(matrix)) = &self.layers[node] else {
            return 0;
        };
        (0..matrix.outputs)
            .min_by_key(|&output| matrix.row(output).count())
            .unwrap_or(0)
    }

    /// Why this channel stays; `None` if it goes.
    pub(in crate::shrink) fn cause(&self, node: usize, channel: usize) -> Option<Cause> {
        self.causes[node][channel]
    }

    /// Whether a sum or a product ties this channel to others.
    pub(in crate::shrink) fn is_joined(&self, node: usize, channel: usize) -> bool {
        self.joined[node][channel]
    }

    /// The channels of a node that stay.
    pub(in crate::shrink) fn kept(&self, node: usize) -> Vec<usize> {
        let causes = self.causes[node].iter().enumerate();
        causes
            .filter(|(_, cause)| cause.is_some())
            .map(|(channel, _)| channel)
            .collect()
    }

    /// Whether a convolution or product gives a constant in this channel, by itself or by the norms
    /// that alone read it.
    pub(in crate::shrink) fn is_constant(&self, node: usize, channel: usize) -> bool {
        let readers = &self.readers[node];
        let by_norms = readers.iter().all(|&reader| {
            matches!(self.layers[reader], Some(Layer::Norm(_)))
                && self.values.of(reader, channel).is_some()
        });
        self.values.of(node, channel).is_some() || (by_norms && !readers.is_empty())
    }

    /// Where a convolution or product can put constants, if anywhere.
    pub(in crate::shrink) fn sink(&self, node: usize) -> Option<Sink> {
        let Some(Layer::Matrix(matrix)) = &self.layers[node] else {
            return None;
        };
        if matrix.bias.is_some() {
            return Some(Sink::Bias);
        }
        let readers = &self.readers[node];
        let norms = readers
            .iter()
            .all(|&reader| matches!(self.layers[reader], Some(Layer::Norm(_))));
        (norms && !readers.is_empty()).then(|| Sink::Means(readers.clone()))
    }

    /// What the inputs of a convolution or product that go have added to each output that stays.
    pub(in crate::shrink) fn folded(&self, node: usize) -> Vec<f64> {
        let Some(Layer::Matrix(matrix)) = &self.layers[node] else {
            return Vec::new();
        };
        let input = self.graph.nodes()[node].inputs[0];
        let row = |output: usize| -> f64 {
            matrix
                .row(output)
                .filter(|&(channel, _)| self.cause(input, channel).is_none())
                .filter_map(|(channel, sum)| Some(self.values.seen(node, channel)? * sum))
                .sum()
        };
        self.kept(node).into_iter().map(row).collect()
    }
}

/// The marks while they spread.
struct Marks {
    classes: Classes,
    /// By representative of a class.
    causes: Vec<Option<Cause>>,
    /// The filters of each class: node and output channel.
    filters: HashMap<usize, Vec<(usize, usize)>>,
    /// Classes whose filters have not been looked at.
    pending: Vec<usize>,
    sinks: Vec<bool>,
    keeps_constants: bool,
}

impl Marks {
    fn new(analysis: &Analysis<'_>, options: &ShrinkOptions) -> Self {
        let mut classes = Classes::new(analysis.graph, options.depthwise);
        let mut filters: HashMap<usize, Vec<(usize, usize)>> = HashMap::new();
        for (node, layer) in analysis.layers.iter().enumerate() {
            // Grouped convolutions read what is kept anyway, or what goes with their outputs.
            if let Some(Layer::Matrix(matrix)) = layer
                && matrix.groups == 1
            {
                for output in 0..matrix.outputs {
                    let class = classes.of(node, output);
                    filters.entry(class).or_default().push((node, output));
                }
            }
        }
        Self {
            causes: vec![None; classes.len()],
            sinks: (0..analysis.layers.len())
                .map(|node| analysis.sink(node).is_some())
                .collect(),
            classes,
            filters,
            pending: Vec::new(),
            keeps_constants: options.constants == Constants::Keep,
        }
    }

    fn keep(&mut self, class: usize, cause: Cause) {
        if self.causes[class].is_none() {
            self.causes[class] = Some(cause);
            self.pending.push(class);
        }
    }

    fn keep_all(&mut self, graph: &ChannelGraph, node: usize, cause: Cause) {
        for channel in 0..graph.shape(node)[0] {
            let class = self.classes.of(node, channel);
            self.keep(class, cause);
        }
    }

    /// What stays whatever the weights are.
    fn fixed(&mut self, analysis: &Analysis<'_>, depthwise: bool) {
        let graph = analysis.graph;
        for (index, node) in graph.nodes().iter().enumerate() {
            let cause = Cause::Fixed(index);
            let (inputs, outputs) = match (&node.op, &analysis.layers[index]) {
                (Op::Input { .. }, _) => (false, true),
                (Op::Output, _) => (true, false),
                (Op::Opaque { .. }, _) => (true, true),
                (_, Some(Layer::Matrix(matrix))) => {
                    let whole = matrix.groups > 1 && !(depthwise && matrix.is_depthwise());
                    (whole, whole)
                }
                (Op::PadChannels { before, .. }, _) => {
                    let inside = *before..before + graph.shape(node.inputs[0])[0];
                    for channel in (0..graph.shape(index)[0]).filter(|c| !inside.contains(c)) {
                        let class = self.classes.of(index, channel);
                        self.keep(class, cause);
                    }
                    (false, false)
                }
                _ => (false, false),
            };
            if outputs {
                self.keep_all(graph, index, cause);
            }
            if inputs {
                for &input in &node.inputs {
                    self.keep_all(graph, input, cause);
                }
            }
        }
    }

    fn spread(&mut self, analysis: &Analysis<'_>) {
        while let Some(class) = self.pending.pop() {
            let Some(filters) = self.filters.remove(&class) else {
                continue;
            };
            for (node, output) in filters {
                self.filter(analysis, node, output);
            }
        }
    }

    /// Keeps what a filter that stays reads.
    fn filter(&mut self, analysis: &Analysis<'_>, node: usize, output: usize) {
        let Some(Layer::Matrix(matrix)) = &analysis.layers[node] else {
            return;
        };
        let input = analysis.graph.nodes()[node].inputs[0];
        for (channel, _) in matrix.row(output) {
            let cause = match analysis.values.seen(node, channel) {
                Some(0.0) => continue,
                Some(_) if self.sinks[node] => continue,
                Some(_) => Cause::NoBias(node),
                None if self.keeps_constants && analysis.values.of(input, channel).is_some() => {
                    Cause::Border(node)
                }
                None => Cause::Read(node),
            };
            let class = self.classes.of(input, channel);
            self.keep(class, cause);
        }
    }

    /// The first node of which nothing stays.
    fn empty_node(&mut self, graph: &ChannelGraph) -> Option<usize> {
        (0..graph.nodes().len()).find(|&node| {
            (0..graph.shape(node)[0]).all(|channel| {
                let class = self.classes.of(node, channel);
                self.causes[class].is_none()
            })
        })
    }

    fn finish(mut self, graph: &ChannelGraph) -> (Vec<Vec<Option<Cause>>>, Vec<Vec<bool>>) {
        let mut causes = Vec::with_capacity(graph.nodes().len());
        let mut joined = Vec::with_capacity(graph.nodes().len());
        for node in 0..graph.nodes().len() {
            let classes = (0..graph.shape(node)[0]).map(|c| self.classes.of(node, c));
            let classes: Vec<usize> = classes.collect();
            causes.push(classes.iter().map(|&class| self.causes[class]).collect());
            joined.push(classes.iter().map(|&c| self.classes.is_joined(c)).collect());
        }
        (causes, joined)
    }
}
