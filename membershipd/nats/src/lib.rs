//! A nats-server as a supervised child process: its configuration, the child, when to restart it.
