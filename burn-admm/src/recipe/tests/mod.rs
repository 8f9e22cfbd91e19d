mod malformed;
mod net;
mod resume;
mod stages;
