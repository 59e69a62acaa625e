//! The wire: messages and services of `phalanx.v1`, and [`convert`], the only place where wire becomes domain.
//!
//! The prose that defines the protocol stands in the `.proto` files beside this crate's sources.

pub mod convert;

/// Generated from `proto/phalanx/v1/*.proto`; the documentation of each item is the comment there.
#[expect(clippy::all, clippy::allow_attributes, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("phalanx.v1");
}

/// All files of the protocol as an encoded `FileDescriptorSet`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The largest message either side accepts. Records of a long absence and state chunks stay well below it.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
