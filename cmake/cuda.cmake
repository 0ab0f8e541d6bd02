# The "cuda" devices: plain shared objects beside _engine, each loaded when it is first asked for (csrc/tensor/backend.h).
file(GLOB TW_CUDA_SOURCES CONFIGURE_DEPENDS csrc/kernels/cuda/*.cu)

# The emulator: the sources of kernels/cuda by the host compiler. _simt_checked is built with ThreadSanitizer's code
# generation, whose calls land in kernels/simt/check.cpp: every load and store of a kernel is seen.
function(tw_add_simt target checks backend)
  set(objects ${target}_kernels)
  add_library(${objects} OBJECT ${ARGN})
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
  target_compile_options(${objects} PRIVATE -ffp-contract=off -fwrapv -Wno-unknown-pragmas -Wno-maybe-uninitialized)
  file(GLOB runtime CONFIGURE_DEPENDS csrc/kernels/simt/*.cpp)
  if(NOT backend)
    list(FILTER runtime EXCLUDE REGEX backend)
  endif()
  add_library(${target} MODULE ${runtime} $<TARGET_OBJECTS:${objects}>)
  if(checks)
    target_compile_options(${objects} PRIVATE -O1 -g1 -fsanitize=thread -Wno-tsan)
    foreach(t ${target} ${objects})
      target_compile_definitions(${t} PRIVATE TW_SIMT_CHECKED)
    endforeach()
  endif()
  set_target_properties(${target} PROPERTIES PREFIX "")
  target_compile_options(${target} PRIVATE -fno-exceptions)
  target_link_libraries(${target} PRIVATE ${CMAKE_DL_LIBS})
  target_link_options(${target} PRIVATE -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL)
endfunction()

if(TILEWRIGHT_SIMT)
  file(GLOB TW_SIMT_TESTS CONFIGURE_DEPENDS tests/simt/*.cu)
  tw_add_simt(_simt OFF ON ${TW_CUDA_SOURCES})
  tw_add_simt(_simt_checked ON ON ${TW_CUDA_SOURCES})
  tw_add_simt(_simt_tests ON OFF ${TW_SIMT_TESTS})  # planted faults, and each matrix instruction against plain sums
  install(TARGETS _simt _simt_checked _simt_tests LIBRARY DESTINATION tilewright)
endif()
