# Debian 12 packages, and nothing else. gRPC, Protobuf and Abseil are linked statically: a first
# token through client, supervisor and worker takes 226 us instead of 306 us (Debian's gRPC 1.51).
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(ZLIB REQUIRED)
find_package(Protobuf REQUIRED)
find_package(CLI11 REQUIRED)
pkg_check_modules(PCRE2 REQUIRED IMPORTED_TARGET libpcre2-8)
pkg_check_modules(UTF8PROC REQUIRED IMPORTED_TARGET libutf8proc)
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)
pkg_check_modules(SYSTEMD REQUIRED IMPORTED_TARGET libsystemd)

# liburing as an archive where there is one: a worker needs no library more then.
pkg_check_modules(URING REQUIRED liburing)
find_library(SWITCHYARD_URING NAMES liburing.a uring HINTS ${URING_LIBRARY_DIRS} REQUIRED)
add_library(switchyard_uring INTERFACE)
target_include_directories(switchyard_uring INTERFACE ${URING_INCLUDE_DIRS})
target_link_libraries(switchyard_uring INTERFACE ${SWITCHYARD_URING})

find_library(SWITCHYARD_GRPC_ARCHIVE NAMES libgrpc++.a REQUIRED)
get_filename_component(SWITCHYARD_ARCHIVE_DIR ${SWITCHYARD_GRPC_ARCHIVE} DIRECTORY)
find_program(SWITCHYARD_GRPC_CPP_PLUGIN grpc_cpp_plugin REQUIRED)

# Abseil as archives: one copy of its state in every process, the one that gRPC uses too.
file(GLOB SWITCHYARD_ABSL_ARCHIVES ${SWITCHYARD_ARCHIVE_DIR}/libabsl_*.a)
list(FILTER SWITCHYARD_ABSL_ARCHIVES EXCLUDE REGEX "libabsl_flags|scoped_mock_log")
add_library(switchyard_absl INTERFACE)
target_link_libraries(switchyard_absl INTERFACE
  ${SWITCHYARD_ABSL_ARCHIVES} Threads::Threads rt)

add_library(switchyard_protobuf INTERFACE)
target_link_libraries(switchyard_protobuf INTERFACE
  ${SWITCHYARD_ARCHIVE_DIR}/libprotobuf.a ZLIB::ZLIB Threads::Threads)

add_library(switchyard_grpc INTERFACE)
target_link_libraries(switchyard_grpc INTERFACE
  ${SWITCHYARD_ARCHIVE_DIR}/libgrpc++.a
  ${SWITCHYARD_ARCHIVE_DIR}/libgrpc.a
  ${SWITCHYARD_ARCHIVE_DIR}/libaddress_sorting.a
  ${SWITCHYARD_ARCHIVE_DIR}/libupb.a
  ${SWITCHYARD_ARCHIVE_DIR}/libgpr.a
  switchyard_protobuf switchyard_absl
  re2 cares OpenSSL::SSL OpenSSL::Crypto ZLIB::ZLIB dl)
