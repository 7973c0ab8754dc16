# switchyard_test(NAME SOURCES a.cc ... LIBS target ... [LABELS l ...] [TIMEOUT seconds]
#                 [PRECOMPILE group ...] [ORACLES])
# One GoogleTest binary for a folder of tests. ORACLES: its own code computes a lot. The others are
# compiled at -O1, in three quarters of the time; with sanitizers at -O0, in half of that.
find_package(GTest REQUIRED)
set(SWITCHYARD_TESTS_LEFT_OUT "" CACHE STRING
    "Tests that are not part of this build: ./check has them run in another one, with sanitizers")
function(switchyard_test name)
  if(name IN_LIST SWITCHYARD_TESTS_LEFT_OUT)
    return()
  endif()
  cmake_parse_arguments(ARG "ORACLES" "TIMEOUT" "SOURCES;LIBS;LABELS;PRECOMPILE" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE SWITCHYARD_SOURCE_DIR="${CMAKE_SOURCE_DIR}"
                                             SWITCHYARD_BINARY_DIR="${CMAKE_BINARY_DIR}")
  list(LENGTH ARG_SOURCES files)
  if(files GREATER 3)  # else it takes longer
    switchyard_precompile(${name} test ${ARG_PRECOMPILE})
  endif()
  if(NOT ARG_ORACLES)
    set(level -O1)
    if(SWITCHYARD_SANITIZER)
      set(level -O0)
    endif()
    target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${level}>)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
endfunction()
