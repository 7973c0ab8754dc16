#include "supervisor/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace switchyard::supervisor {
namespace {

namespace pb = google::protobuf;
namespace reflection = grpc::reflection::v1alpha;

void Fail(absl::StatusCode code, const std::string& message,
          reflection::ServerReflectionResponse* response) {
  response->mutable_error_response()->set_error_code(static_cast<int>(code));
  response->mutable_error_response()->set_error_message(message);
}

// The file that was asked for comes first, as clients expect it; then what it imports, each once.
void AddFile(const pb::FileDescriptor& file, std::set<const pb::FileDescriptor*>* known,
             reflection::FileDescriptorResponse* response) {
  if (!known->insert(&file).second) return;
  pb::FileDescriptorProto proto;
  file.CopyTo(&proto);
  response->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file.dependency_count(); ++i) {
    AddFile(*file.dependency(i), known, response);
  }
}

void AnswerFile(const pb::FileDescriptor* file, const std::string& asked,
                reflection::ServerReflectionResponse* response) {
  if (file == nullptr) {
    return Fail(absl::StatusCode::kNotFound, absl::StrCat(asked, " is not known"), response);
  }
  std::set<const pb::FileDescriptor*> known;
  AddFile(*file, &known, response->mutable_file_descriptor_response());
}

void AnswerExtension(const reflection::ExtensionRequest& asked,
                     reflection::ServerReflectionResponse* response) {
  const auto* pool = pb::DescriptorPool::generated_pool();
  const pb::Descriptor* type = pool->FindMessageTypeByName(asked.containing_type());
  const pb::FieldDescriptor* field =
      type == nullptr ? nullptr : pool->FindExtensionByNumber(type, asked.extension_number());
  AnswerFile(field == nullptr ? nullptr : field->file(),
             absl::StrCat("extension ", asked.extension_number(), " of ", asked.containing_type()),
             response);
}

void AnswerExtensionNumbers(const std::string& type_name,
                            reflection::ServerReflectionResponse* response) {
  const auto* pool = pb::DescriptorPool::generated_pool();
  const pb::Descriptor* type = pool->FindMessageTypeByName(type_name);
  if (type == nullptr) {
    return Fail(absl::StatusCode::kNotFound, absl::StrCat(type_name, " is not known"), response);
  }
  auto* answer = response->mutable_all_extension_numbers_response();
  answer->set_base_type_name(type_name);
  std::vector<const pb::FieldDescriptor*> extensions;
  pool->FindAllExtensions(type, &extensions);
  for (const auto* extension : extensions) answer->add_extension_number(extension->number());
}

}  // namespace

reflection::ServerReflectionResponse Reflect(const std::vector<std::string>& services,
                                             const reflection::ServerReflectionRequest& request) {
  using Request = reflection::ServerReflectionRequest;
  const auto* pool = pb::DescriptorPool::generated_pool();
  reflection::ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case Request::kListServices:
      for (const std::string& name : services) {
        response.mutable_list_services_response()->add_service()->set_name(name);
      }
      break;
    case Request::kFileByFilename:
      AnswerFile(pool->FindFileByName(request.file_by_filename()), request.file_by_filename(),
                 &response);
      break;
    case Request::kFileContainingSymbol:
      AnswerFile(pool->FindFileContainingSymbol(request.file_containing_symbol()),
                 request.file_containing_symbol(), &response);
      break;
    case Request::kFileContainingExtension:
      AnswerExtension(request.file_containing_extension(), &response);
      break;
    case Request::kAllExtensionNumbersOfType:
      AnswerExtensionNumbers(request.all_extension_numbers_of_type(), &response);
      break;
    case Request::MESSAGE_REQUEST_NOT_SET:
      Fail(absl::StatusCode::kInvalidArgument, "the request asks for nothing", &response);
  }
  return response;
}

}  // namespace switchyard::supervisor
