#include "worker/io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "common/utf8.h"
#include "tests/worker/io/checkpoint_writer.h"

namespace switchyard::worker {
namespace {

using testing::HasSubstr;

absl::Status OpenRaw(const std::string& header, const std::string& data) {
  const TempDir dir;
  WriteRawSafetensors(dir / "model.safetensors", header, data);
  return SafetensorsFile::Open(dir / "model.safetensors").status();
}

TEST(Safetensors, ReadsWhatWasWritten) {
  const TempDir dir;
  WriteSafetensors(dir / "m", {{"b", "F32", {2, 2}, FloatBytes({1, 2, 3, 4})},
                               {"a", "BF16", {3}, Bf16Bytes({1, 2, 3})},
                               {"none", "I64", {0, 5}, ""},
                               {"scalar", "U8", {}, "x"}});
  const auto file = SafetensorsFile::Open(dir / "m");
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors().size(), 4u);
  const TensorInfo& b = file->tensors()[0];
  EXPECT_EQ(b.name, "b");
  EXPECT_EQ(b.type, TensorType::kF32);
  EXPECT_EQ(b.shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(b.bytes, 16u);
  std::string data(16, '\0');
  ASSERT_TRUE(file->Read(b.offset, std::as_writable_bytes(std::span(data))).ok());
  EXPECT_EQ(data, FloatBytes({1, 2, 3, 4}));
}

TEST(Safetensors, KnowsTheTypesOfQuantizedFiles) {
  const char* header = R"({"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},)"
                       R"("b":{"dtype":"I32","shape":[1],"data_offsets":[2,6]},)"
                       R"("c":{"dtype":"F4","shape":[2,2],"data_offsets":[6,8]}})";
  EXPECT_TRUE(OpenRaw(header, std::string(8, 'x')).ok());
}

TEST(Safetensors, RefusesFilesThatAreTooShort) {
  const TempDir dir;
  EXPECT_TRUE(absl::IsNotFound(SafetensorsFile::Open(dir / "m").status()));
  WriteText(dir / "m", "");
  EXPECT_THAT(SafetensorsFile::Open(dir / "m").status().message(), HasSubstr("too few"));
  WriteText(dir / "m", std::string("\x10\0\0\0\0\0\0\0{}", 10));
  EXPECT_THAT(SafetensorsFile::Open(dir / "m").status().message(), HasSubstr("truncated"));
  WriteText(dir / "m", std::string(8, '\xff') + "{}");
  EXPECT_THAT(SafetensorsFile::Open(dir / "m").status().message(),
              HasSubstr("18446744073709551615"));
}

TEST(Safetensors, RefusesADirectory) {
  const TempDir dir;
  EXPECT_THAT(SafetensorsFile::Open(dir.path()).status().message(),
              HasSubstr("not a regular file"));
}

// Each header lies in one way; eight bytes of data follow it.
struct Lie {
  const char* header;
  const char* says;
};

TEST(Safetensors, RefusesHeadersThatLie) {
  const Lie lies[] = {
      {R"([1])", "not a safetensors header"},
      {R"({"a":)", "not valid JSON"},
      {R"({"a":1})", "not an object"},
      {R"({"a":{"shape":[2],"data_offsets":[0,8]}})", "dtype"},
      {R"({"a":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})", "unknown dtype \"F31\""},
      {R"({"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}})", "shape"},
      {R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", "dimension -2"},
      {R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", "dimension 2.0"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", "overflow"},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})", "dimension"},
      {R"({"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,2],"data_offsets":[0,8]}})",
       "dimensions"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", "data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":["0",8]}})", "data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", "before it begins"},
      {R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}})", "truncated"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,8]}})", "offsets span 8"},
      {R"({"a":{"dtype":"F4","shape":[15],"data_offsets":[0,8]}})", "byte"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "overlaps"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", "hole of 4"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", "4 bytes after the last"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "twice"},
  };
  for (const Lie& lie : lies) {
    const absl::Status status = OpenRaw(lie.header, "12345678");
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << lie.header;
    EXPECT_THAT(status.message(), HasSubstr(lie.says)) << lie.header;
    EXPECT_THAT(status.message(), HasSubstr("model.safetensors")) << lie.header;
  }
}

TEST(Safetensors, AFileThatShrinksIsAnErrorAndNoSignal) {
  const TempDir dir;
  WriteSafetensors(dir / "m", {{"a", "F32", {1024}, std::string(4096, 'x')}});
  const auto file = SafetensorsFile::Open(dir / "m");
  ASSERT_TRUE(file.ok());
  ASSERT_EQ(::truncate((dir / "m").c_str(), 1000), 0);
  std::string data(4096, '\0');
  const absl::Status status =
      file->Read(file->tensors()[0].offset, std::as_writable_bytes(std::span(data)));
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("ends at byte 1000"));
}

TEST(Safetensors, NamesInMessagesAreEscaped) {
  const std::string name = QuotedName("\x1b[31m\n" + std::string(1000, 'x'));
  EXPECT_THAT(name, HasSubstr("\\033[31m\\n"));
  EXPECT_LT(name.size(), 300u);
}

TEST(Safetensors, NamesInMessagesAreCutBetweenCharacters) {
  std::string name = "x";
  for (int i = 0; i < 100; ++i) name += "\xE4\xB8\x96";
  EXPECT_EQ(FindInvalidUtf8(QuotedName(name)), std::string::npos) << QuotedName(name);
}

}  // namespace
}  // namespace switchyard::worker
