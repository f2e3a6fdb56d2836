# The build's own view of farskip_dependencies.cmake: everything is required, libtorch may come from the project's venv,
# and the program, the tests and the sources of the libraries need a few headers more.
if(FARSKIP_TORCH)
  set(TORCH_DIR "$ENV{TORCH_DIR}" CACHE PATH "Folder of a torch wheel or libtorch, instead of the project's venv")
  execute_process(COMMAND ${CMAKE_COMMAND} -E env TORCH_DIR=${TORCH_DIR} ${CMAKE_SOURCE_DIR}/scripts/torch_prefix.sh
                  OUTPUT_VARIABLE torch_prefix OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE torch_status)
  if(NOT torch_status EQUAL 0)
    message(FATAL_ERROR "No libtorch found: run `make venv`, or give TORCH_DIR=<folder of a torch wheel or libtorch>, "
                        "or build the core alone with -DFARSKIP_TORCH=OFF.")
  endif()
  list(PREPEND CMAKE_PREFIX_PATH ${torch_prefix})
endif()
set(farskip_required REQUIRED)
include(farskip_dependencies)

find_package(CLI11 REQUIRED ${farskip_from})
find_path(SPDLOG_INCLUDE spdlog/spdlog.h REQUIRED ${farskip_headers_from})
find_path(PCRE2_INCLUDE pcre2.h REQUIRED ${farskip_headers_from})
find_path(SENTENCEPIECE_INCLUDE sentencepiece_processor.h REQUIRED ${farskip_headers_from})
find_path(UTF8PROC_INCLUDE utf8proc.h REQUIRED ${farskip_headers_from})
find_path(HTTPLIB_INCLUDE httplib.h REQUIRED ${farskip_headers_from})
find_path(OPENSSL_HEADERS openssl/ssl.h REQUIRED ${farskip_headers_from})  # what httplib.h includes, and what that does
find_path(OPENSSL_CONFIGURATION openssl/configuration.h REQUIRED ${farskip_headers_from} PATH_SUFFIXES ${CMAKE_LIBRARY_ARCHITECTURE})
if(FARSKIP_TESTS)
  find_package(GTest REQUIRED ${farskip_from})
endif()
if(FARSKIP_TORCH)
  message(STATUS "libtorch ${Torch_VERSION} at ${TORCH_INSTALL_PREFIX}")
  find_path(GLOO_INCLUDE gloo/config.h REQUIRED ${farskip_headers_from})
endif()
if(FARSKIP_DEPS)
  target_include_directories(farskip_options SYSTEM INTERFACE $<BUILD_INTERFACE:${FARSKIP_DEPS}/usr/include>)
endif()
target_link_libraries(farskip_options INTERFACE farskip_packages)
