//! Published figures, reproduced on the example's files.

mod fed_avg;
mod heart;
