//! Sentences in memory: words, vocabulary, splits and batches.
//!
//! [`load`] is the way in: it finds the movie reviews ([`reviews`]), splits every sentence into words
//! ([`words`](fn@words)), and gives numbers to the words of the training sentences ([`Vocabulary`]).
//! Where the reviews are not to be had, it draws sentences ([`drawn`]) and says so.
//! [`TextLoader`] turns a split into batches `[batch, length]` of word numbers.
//!
//! ```
//! use examples::data::LoadOptions;
//! use examples::data::text::{TextConfig, TextLoader, drawn};
//!
//! let options = LoadOptions { limit: Some(80), test_limit: Some(20), ..LoadOptions::default() };
//! let data = drawn::load(&options, &TextConfig::default())?;
//! assert_eq!((data.train.len() + data.valid.len(), data.test.len()), (80, 20));
//!
//! let device = burn::tensor::Device::flex();
//! let batch = TextLoader::train(&data, 16, 42).epoch(0, &device).next().unwrap();
//! let longest = batch.lengths.iter().max().unwrap();
//! assert_eq!(batch.words.dims(), [16, *longest]);
//! # Ok::<(), examples::data::DataError>(())
//! ```

mod args;
mod batch;
mod dataset;
pub mod drawn;
mod load;
pub mod reviews;
mod vocabulary;
mod words;

pub use args::TextArgs;
pub use batch::{TextBatch, TextBatches, TextLoader};
pub use dataset::{Sentences, TextConfig, TextDataset};
pub use load::load;
pub use vocabulary::Vocabulary;
pub use words::words;
