//! A simulation of the whole relay from a seed, with planted faults that it has to find. All code
//! is in `tests/simulation`, so that only a build of tests enables the relay's feature `testing`.
