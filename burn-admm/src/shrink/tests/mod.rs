mod cases;
mod model;
mod net;
mod random;
