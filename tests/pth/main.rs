//! Checkpoints of PyTorch: what it writes is read, what is written it reads, and what is wrong is refused.

mod archives;
mod hostile_archives;
mod hostile_pickles;
mod hostile_tensors;
mod reading;
mod refusal;
mod writing;
