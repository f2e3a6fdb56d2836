# Debian's libraries (from FARSKIP_DEPS alone where that is given, else the system's), and libtorch.
if(FARSKIP_DEPS)
  set(from PATHS ${FARSKIP_DEPS}/usr NO_DEFAULT_PATH)
  set(headers_from PATHS ${FARSKIP_DEPS}/usr/include NO_DEFAULT_PATH)
  target_include_directories(farskip_options SYSTEM INTERFACE ${FARSKIP_DEPS}/usr/include)
endif()

find_package(Threads REQUIRED)
find_package(CLI11 REQUIRED ${from})
find_package(nlohmann_json REQUIRED ${from})
find_package(yaml-cpp REQUIRED ${from})
find_path(FMT_INCLUDE fmt/format.h REQUIRED ${headers_from})
find_path(SPDLOG_INCLUDE spdlog/spdlog.h REQUIRED ${headers_from})
if(FARSKIP_TESTS)
  find_package(GTest REQUIRED ${from})
endif()
target_link_libraries(farskip_options INTERFACE yaml-cpp)

if(FARSKIP_TORCH)
  set(TORCH_DIR "$ENV{TORCH_DIR}" CACHE PATH "Folder of a torch wheel or libtorch, instead of the project's venv")
  execute_process(COMMAND ${CMAKE_COMMAND} -E env TORCH_DIR=${TORCH_DIR} ${CMAKE_SOURCE_DIR}/scripts/torch_prefix.sh
                  OUTPUT_VARIABLE torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE torch_status)
  if(NOT torch_status EQUAL 0)
    message(FATAL_ERROR "No libtorch found: run `make venv`, or give TORCH_DIR=<folder of a torch wheel or libtorch>, "
                        "or build the core alone with -DFARSKIP_TORCH=OFF.")
  endif()
  list(PREPEND CMAKE_PREFIX_PATH ${torch_prefix})
  set(CMAKE_MESSAGE_LOG_LEVEL ERROR)  # the CPU wheel's config warns about kineto, which is not used
  find_package(Torch REQUIRED)
  unset(CMAKE_MESSAGE_LOG_LEVEL)
  message(STATUS "libtorch ${Torch_VERSION} at ${TORCH_INSTALL_PREFIX}")
  find_path(GLOO_INCLUDE gloo/config.h REQUIRED ${headers_from})

  add_library(farskip_torch INTERFACE)
  target_include_directories(farskip_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
  target_compile_definitions(farskip_torch INTERFACE USE_C10D_GLOO)
  separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
  target_compile_options(farskip_torch INTERFACE ${torch_flags})
  target_link_libraries(farskip_torch INTERFACE ${TORCH_LIBRARIES})
  # at::parallel_for is compiled into its callers and runs on one thread without OpenMP. The runtime must be the one that
  # libtorch brings along, whose number of threads at::set_num_threads sets.
  target_compile_options(farskip_torch INTERFACE -fopenmp)
  file(GLOB gomp ${TORCH_INSTALL_PREFIX}/lib/libgomp*.so* ${TORCH_INSTALL_PREFIX}/../torch.libs/libgomp*.so*)
  if(NOT gomp)
    set(gomp gomp)
  endif()
  list(GET gomp 0 gomp)
  target_link_libraries(farskip_torch INTERFACE ${gomp})
endif()
