//! Keeps the node's certificate young, and the keys of authorities on the nodes that may sign.
