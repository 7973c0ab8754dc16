#include "supervisor/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/descriptor_database.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "switchyard/v1/control.pb.h"

namespace switchyard::supervisor {
namespace {

namespace pb = google::protobuf;
using grpc::reflection::v1alpha::ServerReflectionRequest;
using grpc::reflection::v1alpha::ServerReflectionResponse;

ServerReflectionResponse Ask(const ServerReflectionRequest& request) {
  return Reflect({"a.B", "c.D"}, request);
}

// What a client does: makes descriptors of the files that came, with no others at hand. The first
// file is the one that was asked for.
class Client {
 public:
  explicit Client(const ServerReflectionResponse& response) {
    for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
      pb::FileDescriptorProto file;
      EXPECT_TRUE(file.ParseFromString(bytes));
      EXPECT_TRUE(database_.Add(file)) << file.name();
      if (first_.empty()) first_ = file.name();
    }
  }
  const pb::ServiceDescriptor* Service(const std::string& name) {
    const pb::FileDescriptor* file = pool_.FindFileByName(first_);
    return file == nullptr ? nullptr : file->FindServiceByName(name);
  }
  pb::DescriptorPool& pool() { return pool_; }

 private:
  pb::SimpleDescriptorDatabase database_;
  std::string first_;
  pb::DescriptorPool pool_{&database_};
};

TEST(Reflection, ListsTheServices) {
  ServerReflectionRequest request;
  request.set_host("h");
  request.set_list_services("");
  const auto response = Ask(request);
  ASSERT_EQ(response.list_services_response().service_size(), 2);
  EXPECT_EQ(response.list_services_response().service(1).name(), "c.D");
  EXPECT_EQ(response.valid_host(), "h");
  EXPECT_EQ(response.original_request().host(), "h");
}

TEST(Reflection, ASymbolsFilesAreEnoughToCallIt) {
  v1::Status::descriptor();  // links the file
  ServerReflectionRequest request;
  request.set_file_containing_symbol("switchyard.v1.Control");
  Client client(Ask(request));
  const auto* service = client.Service("Control");
  ASSERT_NE(service, nullptr);
  EXPECT_NE(service->FindMethodByName("Switch"), nullptr);
  EXPECT_NE(client.pool().FindMessageTypeByName("switchyard.v1.ModelStatus"), nullptr);
}

TEST(Reflection, AFileByItsName) {
  ServerReflectionRequest request;
  request.set_file_by_filename("grpc/health/v1/health.proto");
  EXPECT_NE(Client(Ask(request)).Service("Health"), nullptr);
}

TEST(Reflection, ATypeWithoutExtensions) {
  ServerReflectionRequest request;
  request.set_all_extension_numbers_of_type("switchyard.v1.Status");
  const auto response = Ask(request);
  EXPECT_EQ(response.all_extension_numbers_response().base_type_name(), "switchyard.v1.Status");
  EXPECT_EQ(response.all_extension_numbers_response().extension_number_size(), 0);
}

TEST(Reflection, WhatIsNotThereIsAnErrorOfTheAnswer) {
  ServerReflectionRequest file, symbol, extension, numbers, nothing;
  file.set_file_by_filename("no.proto");
  symbol.set_file_containing_symbol("no.Symbol");
  extension.mutable_file_containing_extension()->set_containing_type("switchyard.v1.Status");
  extension.mutable_file_containing_extension()->set_extension_number(7);
  numbers.set_all_extension_numbers_of_type("no.Type");
  for (const auto& request : {file, symbol, extension, numbers}) {
    EXPECT_EQ(Ask(request).error_response().error_code(),
              static_cast<int>(absl::StatusCode::kNotFound))
        << request.ShortDebugString();
  }
  EXPECT_EQ(Ask(nothing).error_response().error_code(),
            static_cast<int>(absl::StatusCode::kInvalidArgument));
}

}  // namespace
}  // namespace switchyard::supervisor
