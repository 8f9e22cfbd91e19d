//! What the runnable examples share: images and recordings, command-line habits, device choice,
//! timing, progress and the report every run leaves behind.
//!
//! An example is a thin program over these modules; nothing here knows a pruning method.
//!
//! * [`data`]: CIFAR-10/100, MNIST, folders of images and a drawn set, decoded once into memory,
//!   split, shuffled and augmented reproducibly; spoken digits as log-mel spectrograms;
//!   movie reviews as sequences of words.
//! * [`mod@bench`]: layers and networks timed, compared and plotted, sparse beside dense.
//! * [`cli`]: the arguments every example understands.
//! * [`device`]: `--device auto|flex|vulkan|…` to a [`burn::tensor::Device`].
//! * [`timing`]: median and minimum milliseconds with the device synchronised inside.
//! * [`infer`]: running a network that was pruned elsewhere.
//! * [`profile`]: where its time goes.
//! * [`training`]: dense training, pruning, retraining and packing, stoppable at any epoch.
//! * [`speech`]: block-structured pruning of a classifier of recordings; [`text`]: pruning of a
//!   classifier of sentences; [`sequence`]: the stages of training that both share.
//! * [`report`]: `report.json` and the printed table; [`figure`]: lines as a drawing.
//! * [`progress`], [`output`]: bars that degrade to lines; folders and files written whole or not
//!   at all.

pub mod bench;
pub mod cli;
pub mod compress;
pub mod data;
pub mod device;
pub mod figure;
pub mod infer;
pub mod output;
pub mod profile;
pub mod progress;
mod quiet;
pub mod report;
pub mod sequence;
pub mod speech;
pub mod text;
pub mod timing;
pub mod training;

#[cfg(test)]
mod testing;
