# Installs src/FOLDER/*.h of farskip_folders as farskip_include/FOLDER/*.h. In them #include "FOLDER/NAME.h" becomes
# #include "farskip/FOLDER/NAME.h".
string(REPLACE ";" "|" folders "${farskip_folders}")
foreach(folder ${farskip_folders})
  file(GLOB headers ${farskip_source}/${folder}/*.h)
  foreach(header ${headers})
    file(READ ${header} text)
    string(REGEX REPLACE "#include \"(${folders})/" "#include \"farskip/\\1/" text "${text}")
    get_filename_component(name ${header} NAME)
    file(WRITE ${farskip_staging}/${folder}/${name} "${text}")
    file(INSTALL ${farskip_staging}/${folder}/${name} DESTINATION ${farskip_include}/${folder})
  endforeach()
endforeach()
