//! Names the peers' crates, whose C and C++ sources `build.sh` compiles. Never built itself.
