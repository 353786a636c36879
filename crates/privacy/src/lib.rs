//! Privacy mathematics only: clip, quantise, exact sums, disclosure rules.
