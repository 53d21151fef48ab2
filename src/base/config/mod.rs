//! Configuration: one typed table of Kafka keys, and the typed views made from it.
