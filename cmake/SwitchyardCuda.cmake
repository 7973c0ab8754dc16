# Whether the CUDA kernels are built: AUTO where there is an nvcc.
set(SWITCHYARD_CUDA AUTO CACHE STRING "Build the CUDA kernels: AUTO (where nvcc is found), ON, OFF")
set_property(CACHE SWITCHYARD_CUDA PROPERTY STRINGS AUTO ON OFF)
set(SWITCHYARD_CUDA_ARCHITECTURES "" CACHE STRING
    "Compute capabilities to build machine code for, as CMAKE_CUDA_ARCHITECTURES takes them; empty: \
those of this machine's GPUs, or 90 where there is none")

# Those of 8.0 and later that the driver tells of, as "86;90".
function(switchyard_find_capabilities result)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE told ERROR_QUIET RESULT_VARIABLE status)
  set(found "")
  if(status EQUAL 0)
    string(REGEX MATCHALL "[0-9]+[.][0-9]" found "${told}")
    list(TRANSFORM found REPLACE "[.]" "")
    list(REMOVE_DUPLICATES found)
    list(FILTER found EXCLUDE REGEX "^[0-7][0-9]$")
  endif()
  if(NOT found)
    set(found 90)
  endif()
  set(${result} "${found}" PARENT_SCOPE)
endfunction()

set(SWITCHYARD_HAVE_CUDA OFF)
# The sanitizers of the host compiler know nothing of device code.
if(SWITCHYARD_CUDA STREQUAL "ON" OR (SWITCHYARD_CUDA STREQUAL "AUTO" AND NOT SWITCHYARD_SANITIZER))
  find_program(SWITCHYARD_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH PATHS /usr/local/cuda
               PATH_SUFFIXES bin)
  if(SWITCHYARD_NVCC)
    set(CMAKE_CUDA_COMPILER ${SWITCHYARD_NVCC} CACHE FILEPATH "CUDA compiler")
    set(CMAKE_CUDA_ARCHITECTURES ${SWITCHYARD_CUDA_ARCHITECTURES})
    if(NOT CMAKE_CUDA_ARCHITECTURES)
      switchyard_find_capabilities(CMAKE_CUDA_ARCHITECTURES)
    endif()
    if(SWITCHYARD_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
      set(CMAKE_CUDA_COMPILER_LAUNCHER ${SWITCHYARD_CCACHE})
    endif()
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(SWITCHYARD_HAVE_CUDA ON)
    message(STATUS "CUDA kernels: ${SWITCHYARD_NVCC}, for ${CMAKE_CUDA_ARCHITECTURES}")
  elseif(SWITCHYARD_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SWITCHYARD_CUDA is ON, and there is no nvcc")
  else()
    message(STATUS "CUDA kernels: not built, there is no nvcc")
  endif()
endif()
