#pragma once

// Messages on their way from and to gRPC, which is given bytes: a string that is not UTF-8 is then
// the client's INVALID_ARGUMENT and not an INTERNAL error of ours.

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/statusor.h"

namespace switchyard {

template <typename Message>
absl::StatusOr<Message> ParseRequest(const grpc::ByteBuffer& bytes) {
  Message message;
  grpc::ByteBuffer reading = bytes;  // shares the slices; reading consumes the object
  if (!grpc::SerializationTraits<Message>::Deserialize(&reading, &message).ok()) {
    return absl::InvalidArgumentError("the request is not a valid " +
                                      Message::descriptor()->full_name() +
                                      ", or one of its strings is not UTF-8");
  }
  return message;
}

template <typename Message>
grpc::ByteBuffer SerializeMessage(const Message& message) {
  grpc::ByteBuffer bytes;
  bool own;
  (void)grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own);
  return bytes;
}

}  // namespace switchyard
