# Debian's libraries (or the same from FARSKIP_DEPS), and libtorch.
if(FARSKIP_DEPS)
  list(PREPEND CMAKE_PREFIX_PATH ${FARSKIP_DEPS} ${FARSKIP_DEPS}/usr)
  target_include_directories(farskip_options SYSTEM INTERFACE ${FARSKIP_DEPS}/usr/include)
endif()

find_package(Threads REQUIRED)
find_package(CLI11 REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(yaml-cpp REQUIRED)
find_path(FMT_INCLUDE fmt/format.h REQUIRED)
find_path(SPDLOG_INCLUDE spdlog/spdlog.h REQUIRED)
find_package(GTest REQUIRED)

if(FARSKIP_TORCH)
  if(NOT Torch_DIR)
    execute_process(COMMAND ${CMAKE_SOURCE_DIR}/scripts/torch_prefix.sh OUTPUT_VARIABLE torch_prefix
                    OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE torch_status)
    if(NOT torch_status EQUAL 0)
      message(FATAL_ERROR "No libtorch found: run `make venv`, or give TORCH_DIR=<folder of a torch wheel or libtorch>, "
                          "or build the core alone with -DFARSKIP_TORCH=OFF.")
    endif()
    list(APPEND CMAKE_PREFIX_PATH ${torch_prefix})
  endif()
  set(CMAKE_MESSAGE_LOG_LEVEL ERROR)  # the CPU wheel's config warns about kineto, which is not used
  find_package(Torch REQUIRED)
  unset(CMAKE_MESSAGE_LOG_LEVEL)
  message(STATUS "libtorch ${Torch_VERSION} at ${TORCH_INSTALL_PREFIX}")
  find_path(GLOO_INCLUDE gloo/config.h REQUIRED)

  add_library(farskip_torch INTERFACE)
  target_include_directories(farskip_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
  target_compile_definitions(farskip_torch INTERFACE USE_C10D_GLOO)
  separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
  target_compile_options(farskip_torch INTERFACE ${torch_flags})
  target_link_libraries(farskip_torch INTERFACE ${TORCH_LIBRARIES})
endif()
