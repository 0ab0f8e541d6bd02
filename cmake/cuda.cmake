# The "cuda" devices: plain shared objects beside _engine, each loaded when it is first asked for (csrc/tensor/backend.h).
file(GLOB TW_CUDA_SOURCES CONFIGURE_DEPENDS csrc/kernels/cuda/*.cu)
list(FILTER TW_CUDA_SOURCES EXCLUDE REGEX "backend.cu$")  # each device has its own

# The emulator: the sources of kernels/cuda by the host compiler. _simt_checked is built with ThreadSanitizer's code
# generation, whose calls land in kernels/simt/check.cpp: every load and store of a kernel is seen.
function(tw_add_simt target checks backend)
  set(objects ${target}_kernels)
  add_library(${objects} OBJECT ${ARGN})
  set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-xc++")
  target_compile_options(${objects} PRIVATE -ffp-contract=off -fwrapv -Wno-unknown-pragmas -Wno-maybe-uninitialized
    -Wno-psabi)
  if(TILEWRIGHT_SANITIZE)  # kernels form addresses outside of arrays that they never read: reads are what is watched
    target_compile_options(${objects} PRIVATE -fno-sanitize=pointer-overflow)
  endif()
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
  set(checks ON)
  if(TILEWRIGHT_SANITIZE)  # AddressSanitizer's code in place of ThreadSanitizer's: a source cannot have both
    set(checks OFF)
  endif()
  tw_add_simt(_simt OFF ON ${TW_CUDA_SOURCES})
  tw_add_simt(_simt_tests ${checks} OFF ${TW_SIMT_TESTS})  # planted faults, and matrix instructions against plain sums
  if(checks)
    tw_add_simt(_simt_checked ON ON ${TW_CUDA_SOURCES})
    install(TARGETS _simt_checked LIBRARY DESTINATION tilewright)
  endif()
  install(TARGETS _simt _simt_tests LIBRARY DESTINATION tilewright)
endif()

# The GPU's: nvcc by plain commands, since CMake's own CUDA language wants one list of architectures for all. ptxas's
# resource report (registers, spills, shared memory, stack) of each source is kept beside its object.
if(NOT TILEWRIGHT_CUDA STREQUAL "OFF")
  find_program(TW_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
  if(NOT TW_NVCC AND TILEWRIGHT_CUDA STREQUAL "ON")
    message(FATAL_ERROR "TILEWRIGHT_CUDA=ON, but nvcc is not found")
  endif()
endif()
if(TW_NVCC AND NOT TILEWRIGHT_CUDA STREQUAL "OFF")
  include(cmake/cuda_arch.cmake)
  set(objects "")
  set(reports "")
  foreach(source IN LISTS TW_CUDA_SOURCES ITEMS ${CMAKE_CURRENT_SOURCE_DIR}/csrc/kernels/cuda/backend.cu)
    get_filename_component(name ${source} NAME_WE)
    set(archs ${TW_CUDA_ARCHS})
    if(name MATCHES "_sm90$")
      list(FILTER archs INCLUDE REGEX "sm_90a")
    endif()
    list(TRANSFORM archs PREPEND "-gencode=")
    set(object ${CMAKE_CURRENT_BINARY_DIR}/cuda/${name}.o)
    # -fmad=false as on the CPU: a fused multiply-add is written where it is meant.
    add_custom_command(
      OUTPUT ${object} BYPRODUCTS ${object}.txt  # the report
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_CURRENT_BINARY_DIR}/cuda
      COMMAND sh -c "\"$@\" 2> ${object}.txt || { cat ${object}.txt; exit 1; }" nvcc
              ${CMAKE_CXX_COMPILER_LAUNCHER} ${TW_NVCC} -std=c++20 -O3 -fmad=false --expt-relaxed-constexpr ${archs}
              -Xptxas=-v -Xcompiler=-fPIC,-fvisibility=hidden,-fwrapv,-ffp-contract=off
              -I${CMAKE_CURRENT_SOURCE_DIR}/csrc -MD -MF ${object}.d -c ${source} -o ${object}
      DEPENDS ${source} DEPFILE ${object}.d COMMENT "nvcc ${name}.cu" VERBATIM)
    list(APPEND objects ${object})
    list(APPEND reports ${object}.txt)
  endforeach()
  set(table ${CMAKE_CURRENT_BINARY_DIR}/_cuda_resources.csv)
  add_custom_command(OUTPUT ${table} COMMAND ${Python_EXECUTABLE} ${CMAKE_CURRENT_SOURCE_DIR}/cmake/cuda_resources.py
                                             ${table} ${reports}
                     DEPENDS ${objects} cmake/cuda_resources.py VERBATIM)
  get_filename_component(cuda_root ${TW_NVCC} DIRECTORY)
  find_library(TW_CUDART cudart_static HINTS ${cuda_root}/../lib64 ${cuda_root}/../targets/x86_64-linux/lib REQUIRED)
  add_custom_target(cuda_resources ALL DEPENDS ${table})
  add_library(_cuda MODULE ${objects})
  set_target_properties(_cuda PROPERTIES PREFIX "" LINKER_LANGUAGE CXX)
  target_link_libraries(_cuda PRIVATE ${TW_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
  target_link_options(_cuda PRIVATE -static-libstdc++ -static-libgcc -Wl,--exclude-libs,ALL -Wl,--gc-sections -s)
  install(TARGETS _cuda LIBRARY DESTINATION tilewright)
  install(FILES ${table} DESTINATION tilewright)
endif()
