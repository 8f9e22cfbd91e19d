mod fitting;
mod training;
