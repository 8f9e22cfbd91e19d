mod activations;
mod bits;
mod fitting;
mod training;
