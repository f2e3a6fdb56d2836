# Read by ctest: one entry per suite of a test program, found by asking the program. An entry per test would load libtorch
# as many times as there are tests, a quarter of the time of all. Idle threads sleep (OMP_WAIT_POLICY): tests run beside each
# other, and spinning they take the cores from those that work. Set before: folder, program, tmp.
if(NOT EXISTS ${program})
  add_test(${folder}.NOT_BUILT ${program})
  return()
endif()
execute_process(COMMAND ${program} --gtest_list_tests OUTPUT_VARIABLE listing RESULT_VARIABLE status)
string(REGEX MATCHALL "(^|\n)[^ \n]+\\.(  #[^\n]*)?\n" suites "\n${listing}")
if(NOT status EQUAL 0 OR NOT suites)
  add_test(${folder}.NOT_LISTED ${program} --gtest_list_tests)  # says why
  return()
endif()
foreach(suite ${suites})
  string(REGEX REPLACE "\n?([^ \n]+)\\..*" "\\1" suite "${suite}")
  if(suite MATCHES "DISABLED_")
    continue()
  endif()
  add_test("${folder}.${suite}" ${program} "--gtest_filter=${suite}.*" --gtest_brief=1)
  set_tests_properties("${folder}.${suite}" PROPERTIES TIMEOUT 600 LABELS ${folder}
    ENVIRONMENT "TEST_TMPDIR=${tmp};OMP_WAIT_POLICY=passive" FAIL_REGULAR_EXPRESSION "No tests ran|did not match any")
endforeach()
