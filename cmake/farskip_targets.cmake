# farskip_library(NAME DEPS ... [TORCH]): the library of src/NAME.
function(farskip_library name)
  cmake_parse_arguments(ARG "TORCH" "" "DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.cc)
  list(TRANSFORM ARG_DEPS PREPEND farskip_)
  if(NOT sources)
    add_library(farskip_${name} INTERFACE)
    target_link_libraries(farskip_${name} INTERFACE farskip_options ${ARG_DEPS})
    return()
  endif()
  add_library(farskip_${name} STATIC ${sources})
  target_link_libraries(farskip_${name} PUBLIC farskip_options ${ARG_DEPS} Threads::Threads)
  if(ARG_TORCH)
    farskip_use_torch(farskip_${name})
  endif()
endfunction()

# farskip_embed(LIBRARY FILE FUNCTION): FILE's text is part of the library, as `std::string_view farskip::FUNCTION()`.
function(farskip_embed library file function)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${file})
  file(READ ${CMAKE_SOURCE_DIR}/${file} text)
  file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/embedded/${function}.cc @ONLY CONTENT
"#include <string_view>
namespace farskip {
std::string_view @function@() { return R\"farskip(@text@)farskip\"; }
}  // namespace farskip
")
  target_sources(farskip_${library} PRIVATE ${CMAKE_BINARY_DIR}/embedded/${function}.cc)
endfunction()

# Torch's headers cost 6 to 10 s a file; one precompiled header serves all of them.
function(farskip_use_torch target)
  target_link_libraries(${target} PUBLIC farskip_torch)
  if(NOT TARGET farskip_torch_pch)
    file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/pch.cc CONTENT "")  # unlike WRITE, leaves an unchanged file alone
    add_library(farskip_torch_pch STATIC ${CMAKE_BINARY_DIR}/pch.cc)
    target_link_libraries(farskip_torch_pch PUBLIC farskip_options farskip_torch)
    target_precompile_headers(farskip_torch_pch PRIVATE <ATen/ATen.h> <torch/csrc/autograd/custom_function.h>
                              <nlohmann/json.hpp> <string> <vector> <map> <memory> <functional> <fmt/format.h>)
  endif()
  target_precompile_headers(${target} REUSE_FROM farskip_torch_pch)
endfunction()

function(farskip_program)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/cli/*.cc)
  if(NOT FARSKIP_TORCH)
    file(GLOB torch_sources ${CMAKE_SOURCE_DIR}/src/cli/torch_*.cc)
    if(torch_sources)
      list(REMOVE_ITEM sources ${torch_sources})
    endif()
  endif()
  if(NOT sources)
    return()
  endif()
  add_executable(farskip ${sources})
  target_link_libraries(farskip PRIVATE farskip_sim farskip_data)
  if(FARSKIP_TORCH)
    target_link_libraries(farskip PRIVATE farskip_train farskip_infer)
    target_compile_definitions(farskip PRIVATE FARSKIP_TORCH)
    farskip_use_torch(farskip)
    list(FILTER sources EXCLUDE REGEX "/torch_[^/]*$")
    set_source_files_properties(${sources} PROPERTIES SKIP_PRECOMPILE_HEADERS ON)
  endif()
  set_target_properties(farskip PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
endfunction()

# farskip_tests(FOLDER LIBS ... [TORCH]): one program from tests/FOLDER/*.cc, one ctest entry per test.
function(farskip_tests folder)
  cmake_parse_arguments(ARG "TORCH" "" "LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/${folder}/*.cc)
  if(NOT sources)
    return()
  endif()
  list(TRANSFORM ARG_LIBS PREPEND farskip_)
  add_executable(test_${folder} ${sources})
  target_include_directories(test_${folder} PRIVATE ${CMAKE_SOURCE_DIR})  # for "tests/FOLDER/HELPER.h"
  target_link_libraries(test_${folder} PRIVATE ${ARG_LIBS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(test_${folder} PRIVATE FARSKIP_SOURCE_DIR="${CMAKE_SOURCE_DIR}" FARSKIP_BINARY_DIR="${CMAKE_BINARY_DIR}")
  if(ARG_TORCH)
    farskip_use_torch(test_${folder})
  endif()
  include(GoogleTest)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/tmp)  # of this build: users who share a machine do not share files
  gtest_discover_tests(test_${folder} TEST_PREFIX ${folder}. DISCOVERY_MODE PRE_TEST
    PROPERTIES TIMEOUT 600 LABELS ${folder} ENVIRONMENT TEST_TMPDIR=${CMAKE_BINARY_DIR}/tmp)
endfunction()

# tests/plain_buffer/ATen stands in for libtorch under the transport's own threads, queues and awaits, so that sanitizers
# see all of them.
function(farskip_plain_buffer_tests)
  farskip_tests(plain_buffer LIBS base)
  set(sources transport pending collective reduce meeting loopback device_meeting device_flight queued emulated_link monitor
              probes clock run_ranks io_priority)
  list(TRANSFORM sources PREPEND ${CMAKE_SOURCE_DIR}/src/transport/)
  list(TRANSFORM sources APPEND .cc)
  target_sources(test_plain_buffer PRIVATE ${sources})
  target_include_directories(test_plain_buffer BEFORE PRIVATE ${CMAKE_SOURCE_DIR}/tests/plain_buffer)
endfunction()

# tests/fuzz: built on demand, with sanitizers (tests/long/15_safetensors_fuzz.sh); only what is fuzzed is compiled for it.
function(farskip_fuzzers)
  set(sources ${CMAKE_SOURCE_DIR}/src/model/safetensors)
  add_executable(fuzz_safetensors EXCLUDE_FROM_ALL ${CMAKE_SOURCE_DIR}/tests/fuzz/safetensors_fuzz.cc
    ${CMAKE_SOURCE_DIR}/tests/fuzz/mutations.cc ${sources}.cc ${sources}_header.cc ${sources}_writer.cc)
  target_include_directories(fuzz_safetensors PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(fuzz_safetensors PRIVATE farskip_base)
  farskip_use_torch(fuzz_safetensors)
endfunction()

function(farskip_all_tests)
  farskip_tests(base LIBS base)
  farskip_tests(config LIBS config)
  farskip_tests(layer LIBS layer)
  farskip_tests(schedule LIBS schedule)
  farskip_tests(trace LIBS trace)
  farskip_tests(sim LIBS sim)
  farskip_tests(data LIBS data)
  farskip_tests(structure LIBS base)
  if(FARSKIP_TORCH)
    farskip_tests(nn LIBS nn TORCH)
    farskip_tests(transport LIBS transport TORCH)
    farskip_tests(model LIBS model TORCH)
    farskip_tests(exec LIBS exec TORCH)
    farskip_tests(train LIBS train TORCH)
    farskip_tests(infer LIBS infer TORCH)
    farskip_tests(equivalence LIBS train TORCH)
    farskip_fuzzers()
  else()
    farskip_plain_buffer_tests()
  endif()
  farskip_tests(cli LIBS base)
  if(TARGET test_cli)
    add_dependencies(test_cli farskip)
  endif()
endfunction()

# One program per question: bench/NAME.cc becomes build/bench/NAME.
function(farskip_benchmarks)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/bench/*.cc)
  foreach(source ${sources})
    get_filename_component(name ${source} NAME_WE)
    add_executable(bench_${name} ${source})
    target_link_libraries(bench_${name} PRIVATE farskip_train)
    target_include_directories(bench_${name} PRIVATE ${CMAKE_SOURCE_DIR})  # for "bench/HELPER.h"
    target_compile_definitions(bench_${name} PRIVATE FARSKIP_BENCH_DIR="${CMAKE_SOURCE_DIR}/bench")
    farskip_use_torch(bench_${name})
    set_target_properties(bench_${name} PROPERTIES OUTPUT_NAME ${name} RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
  endforeach()
endfunction()
