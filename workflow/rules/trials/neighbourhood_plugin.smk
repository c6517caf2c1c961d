use rule test as test_neighbourhood_plugin with:
    wildcard_constraints:
        method=variants("neighbourhood_plugin"),
    params:
        code=method_code("neighbourhood_plugin"),
