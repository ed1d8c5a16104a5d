//! A machine that exists only in memory.
