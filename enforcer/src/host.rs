//! What we watch and change on the host: the cgroup tree, network devices, the endpoint's address.

pub mod cgroupfs;
