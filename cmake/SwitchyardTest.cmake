# switchyard_test(NAME SOURCES a.cc ... LIBS target ... [LABELS l ...] [TIMEOUT seconds]
#                 [PRECOMPILE group ...])
# One GoogleTest binary for a folder of tests.
find_package(GTest REQUIRED)
function(switchyard_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LIBS;LABELS;PRECOMPILE" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE SWITCHYARD_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                                             SWITCHYARD_BINARY_DIR="${CMAKE_BINARY_DIR}")
  switchyard_precompile(${name} test ${ARG_PRECOMPILE})
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
