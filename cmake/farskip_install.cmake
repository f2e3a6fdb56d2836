# `cmake --install`: the program with its presets, the libraries with their headers, and the package that
# find_package(farskip) finds (docs/embedding.md).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

function(farskip_package)
  set(package ${CMAKE_INSTALL_LIBDIR}/cmake/farskip)
  get_property(folders GLOBAL PROPERTY farskip_folders)
  add_library(farskip_core INTERFACE)
  target_link_libraries(farskip_core INTERFACE farskip_sim farskip_data)
  set(targets farskip_options farskip_core)
  if(FARSKIP_TORCH)
    add_library(farskip_all INTERFACE)
    target_link_libraries(farskip_all INTERFACE farskip_train farskip_serve farskip_distill farskip_core)
    set_target_properties(farskip_all PROPERTIES EXPORT_NAME farskip)
    list(APPEND targets farskip_all)
  endif()
  foreach(folder ${folders})
    list(APPEND targets farskip_${folder})
    set_target_properties(farskip_${folder} PROPERTIES EXPORT_NAME ${folder})
  endforeach()
  set_target_properties(farskip_options PROPERTIES EXPORT_NAME options)
  set_target_properties(farskip_core PROPERTIES EXPORT_NAME core)
  install(TARGETS ${targets} EXPORT farskip INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT farskip FILE farskipTargets.cmake NAMESPACE farskip:: DESTINATION ${package})

  # As "FOLDER/NAME.h" of other projects is another file, the headers are installed as farskip/FOLDER/NAME.h, and include
  # each other by that name.
  install(CODE "set(farskip_source \"${CMAKE_SOURCE_DIR}/src\")
set(farskip_folders \"${folders}\")
set(farskip_staging \"${CMAKE_BINARY_DIR}/installed_headers\")
set(farskip_include \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_INCLUDEDIR}/farskip\")")
  install(SCRIPT ${CMAKE_SOURCE_DIR}/cmake/install_headers.cmake)

  configure_package_config_file(${CMAKE_SOURCE_DIR}/cmake/farskipConfig.cmake.in ${CMAKE_BINARY_DIR}/farskipConfig.cmake
    INSTALL_DESTINATION ${package} PATH_VARS CMAKE_INSTALL_DATADIR NO_CHECK_REQUIRED_COMPONENTS_MACRO)
  write_basic_package_version_file(${CMAKE_BINARY_DIR}/farskipConfigVersion.cmake COMPATIBILITY SameMinorVersion)
  install(FILES ${CMAKE_BINARY_DIR}/farskipConfig.cmake ${CMAKE_BINARY_DIR}/farskipConfigVersion.cmake
    ${CMAKE_SOURCE_DIR}/cmake/farskip_dependencies.cmake DESTINATION ${package})

  install(TARGETS farskip RUNTIME)
  # Libraries lie where the build found them. CMake by itself leaves out those within the source tree, as in .venv.
  set_target_properties(farskip PROPERTIES INSTALL_RPATH_USE_LINK_PATH ON)
  if(FARSKIP_TORCH)
    get_filename_component(gomp_folder ${farskip_gomp} DIRECTORY)
    set_target_properties(farskip PROPERTIES INSTALL_RPATH "${TORCH_INSTALL_PREFIX}/lib;${gomp_folder}")
  endif()
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/presets DESTINATION ${CMAKE_INSTALL_DATADIR}/farskip)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/docs/ DESTINATION ${CMAKE_INSTALL_DOCDIR} FILES_MATCHING PATTERN *.md)
  install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
endfunction()
