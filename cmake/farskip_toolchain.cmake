# Compiler settings shared by every target: warnings as errors, sanitizers, ccache and mold when present.
find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # GCC's precompiled headers need these two relaxations to be cacheable.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env
      CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} ${CCACHE})
endif()

# What is wrapped in BUILD_INTERFACE is for the sources here only, not for programs that embed the libraries.
add_library(farskip_options INTERFACE)
target_compile_features(farskip_options INTERFACE $<INSTALL_INTERFACE:cxx_std_20>)
# -Wno-restrict: GCC 12 warns falsely inside std::string (its bug 105651).
# Programs and libraries alike: the precompiled header serves only files with the same flags.
target_compile_options(farskip_options INTERFACE
  "$<BUILD_INTERFACE:-fPIC;-fno-math-errno;-fno-trapping-math>")  # nobody reads errno or traps; roots and choices are vectorised
target_compile_options(farskip_options INTERFACE
  "$<BUILD_INTERFACE:-Wall;-Wextra;-Werror;-Wno-unused-parameter;-Wno-restrict;$<$<BOOL:${CCACHE}>:-fpch-preprocess>>")
target_compile_definitions(farskip_options INTERFACE $<INSTALL_INTERFACE:FMT_HEADER_ONLY>)  # else base/format_library
target_compile_definitions(farskip_options INTERFACE $<BUILD_INTERFACE:FARSKIP_VERSION="${PROJECT_VERSION}">)
target_include_directories(farskip_options INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/src>)

find_program(MOLD mold)
if(MOLD)
  target_link_options(farskip_options INTERFACE $<BUILD_INTERFACE:-fuse-ld=mold>)
endif()

if(FARSKIP_SANITIZE)
  target_compile_options(farskip_options INTERFACE -fsanitize=${FARSKIP_SANITIZE} -fno-omit-frame-pointer -g1
    -Wno-maybe-uninitialized)  # under sanitizers GCC 12 warns falsely inside std::regex
  target_link_options(farskip_options INTERFACE -fsanitize=${FARSKIP_SANITIZE})
endif()
