# switchyard_precompile(target GROUP ...): reads the headers of these groups once for all files of
# the target. For builds from nothing, which mostly parse headers; not for daily work, since a
# changed header then compiles the whole target again, and ccache knows nothing of other trees.
# Files include what they need all the same: ./check compiles the programs without this once.
set(SWITCHYARD_PRECOMPILE OFF CACHE STRING
    "Precompile the headers that most files read: OFF, TESTS (and benchmarks), ALL")
set_property(CACHE SWITCHYARD_PRECOMPILE PROPERTY STRINGS OFF TESTS ALL)

set(switchyard_headers_base
  <algorithm> <cstdint> <functional> <map> <memory> <optional> <string> <utility> <vector>
  "<absl/status/status.h>" "<absl/status/statusor.h>" "<absl/strings/str_cat.h>")
set(switchyard_headers_messages
  "<switchyard/v1/control.pb.h>" "<switchyard/v1/inference.pb.h>" "<switchyard/v1/worker.pb.h>")
set(switchyard_headers_grpc
  ${switchyard_headers_messages} "<grpcpp/grpcpp.h>" "<switchyard/v1/control.grpc.pb.h>"
  "<switchyard/v1/inference.grpc.pb.h>")
set(switchyard_headers_bench "<CLI/CLI.hpp>")
set(switchyard_headers_test "<gtest/gtest.h>" "<gmock/gmock.h>")

function(switchyard_precompile target)
  set(wanted ${SWITCHYARD_PRECOMPILE})
  if(wanted STREQUAL "TESTS" AND NOT "test" IN_LIST ARGN AND NOT "bench" IN_LIST ARGN)
    set(wanted OFF)
  endif()
  if(NOT wanted)
    return()
  endif()
  # GCC 12 then takes the standard library's headers for ours, and warns of strings' inlined copies.
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(${target} PRIVATE
      $<$<COMPILE_LANGUAGE:CXX>:-Wno-array-bounds;-Wno-stringop-overflow;-Wno-restrict>)
  endif()
  foreach(group base ${ARGN})
    target_precompile_headers(${target} PRIVATE ${switchyard_headers_${group}})
  endforeach()
endfunction()
